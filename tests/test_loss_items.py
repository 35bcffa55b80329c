"""Losses that are not the mean over samples: cuts and processes must not change what they come to."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, nll_loss
from torch.nn.utils.rnn import pack_sequence

import treadle

GENERATOR = torch.Generator().manual_seed(5)
X = torch.randn(70, 4, generator=GENERATOR)
Y = torch.randint(3, (70,), generator=GENERATOR)
WEIGHTS = torch.tensor([1.0, 20.0, 0.1])
HOLES = torch.where(torch.arange(70) % 4 == 1, 7, Y)

LOSSES: dict[str, tuple[Callable[[], Any], Tensor]] = {
    "weights in a module": (lambda: nn.CrossEntropyLoss(weight=WEIGHTS), Y),
    "weights in a partial": (lambda: partial(cross_entropy, weight=WEIGHTS), Y),
    "weights and smoothing": (lambda: nn.CrossEntropyLoss(weight=WEIGHTS, label_smoothing=0.1), Y),
    "an ignored class": (lambda: nn.CrossEntropyLoss(ignore_index=7), HOLES),
    "both": (lambda: partial(cross_entropy, weight=WEIGHTS, ignore_index=7), HOLES),
    "likelihood": (lambda: nn.NLLLoss(weight=WEIGHTS), Y),
    "a partial of it": (lambda: partial(nll_loss, weight=WEIGHTS), Y),
}


def make_task(loss: Any) -> treadle.SupervisedTask:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(1))
    return treadle.SupervisedTask(model, loss, torch.optim.SGD, lr=0.1)


def trained(loss: Any, targets: Tensor, batch_size: int, **options: Any) -> Tensor:
    task = make_task(loss)
    trainer = treadle.Trainer(max_epochs=2, seed=0, run_dir=None, progress=False, **options)
    trainer.fit(task, treadle.Loader((X, targets), batch_size))
    return torch.cat([parameter.detach().flatten() for parameter in task.parameters()])


@pytest.mark.parametrize("name", LOSSES)
def test_cuts_make_no_difference(name: str) -> None:
    make, targets = LOSSES[name]
    whole = trained(make(), targets, 35)
    assert torch.allclose(trained(make(), targets, 35, microbatch_size=4), whole, atol=1e-6)
    assert torch.allclose(trained(make(), targets, 7, accumulate=5), whole, atol=1e-6)
    assert not torch.allclose(trained(cross_entropy, targets % 3, 35), whole, atol=1e-3)


@pytest.mark.parametrize("name", LOSSES)
def test_an_evaluation_is_the_loss_of_all_samples(name: str) -> None:
    make, targets = LOSSES[name]
    task, trainer = make_task(make()), treadle.Trainer(run_dir=None, progress=False)
    with torch.no_grad():
        expected = float(make()(task.model(X), targets))
    for size in (70, 16, 1):
        found = trainer.evaluate(task, treadle.Loader((X, targets), size))
        assert found["test/loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        cross_entropy,
        nn.CrossEntropyLoss(),
        partial(cross_entropy, label_smoothing=0.1),
        nn.CrossEntropyLoss(weight=WEIGHTS, reduction="sum"),
        lambda output, target: cross_entropy(output, target, weight=WEIGHTS),
    ],
)
def test_all_other_losses_are_means_over_samples(loss: Any) -> None:
    assert make_task(loss).num_items((X, Y)) == 70


def test_probabilities_as_targets_are_samples() -> None:
    task = make_task(nn.CrossEntropyLoss(weight=WEIGHTS))
    assert task.num_items((X, torch.full((70, 3), 1 / 3))) == 70


def test_tensors_of_a_partial_go_where_the_task_goes_and_into_no_checkpoint() -> None:
    task = make_task(partial(cross_entropy, weight=WEIGHTS)).to("meta")
    assert task.loss.given("weight").device.type == "meta"
    assert "CrossEntropy" not in str(task.state_dict().keys())
    assert not any("weight" in name and "loss" in name for name in task.state_dict())
    assert str(task.loss) == "PartialLoss(cross_entropy)"


class Recurrent(nn.Module):
    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cells = nn.LSTM(3, 8, batch_first=batch_first)
        self.head = nn.Linear(8, 2)

    def forward(self, sequences: Any) -> Tensor:
        return self.head(self.cells(sequences)[1][0][-1])  # type: ignore[no-any-return]


SEQUENCES = [torch.randn(3 + number % 4, 3, generator=GENERATOR) for number in range(12)]
LABELS = torch.arange(12) % 2


def test_time_first_batches_count_their_targets() -> None:
    """Five steps of seven sequences are seven items."""
    steps = torch.randn(12, 5, 3, generator=GENERATOR)

    def evaluated(batch_first: bool) -> float:
        def collate(samples: list[Any]) -> Any:
            inputs = torch.stack([one for one, _ in samples], dim=0 if batch_first else 1)
            return inputs, torch.stack([label for _, label in samples])

        task = treadle.SupervisedTask(Recurrent(batch_first), cross_entropy)
        loader = treadle.Loader((steps, LABELS), 5, collate=collate)
        return treadle.Trainer(run_dir=None, progress=False).evaluate(task, loader)["test/loss"]

    assert evaluated(False) == pytest.approx(evaluated(True), rel=1e-6)


def test_packed_sequences_are_one_input_and_count_their_targets() -> None:
    def collate(samples: list[Any]) -> Any:
        return pack_sequence([SEQUENCES[int(n)] for n, _ in samples], enforce_sorted=False), torch.stack(
            [label for _, label in samples]
        )

    def weights(size: int, **options: Any) -> Tensor:
        task = treadle.SupervisedTask(Recurrent(False), cross_entropy, torch.optim.SGD, lr=0.5)
        trainer = treadle.Trainer(max_epochs=1, seed=0, run_dir=None, progress=False, **options)
        trainer.fit(task, treadle.Loader((torch.arange(12), LABELS), size, collate=collate))
        return torch.cat([parameter.detach().flatten() for parameter in task.parameters()])

    assert torch.allclose(weights(4), weights(2, accumulate=2), atol=1e-6)


class Focal(nn.CrossEntropyLoss):
    """Takes weights as torch's does, and divides by the samples."""

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        losses = cross_entropy(output, target, weight=self.weight, reduction="none")
        return ((1 - torch.exp(-losses)) ** 2 * losses).mean()


def test_a_subclass_of_torchs_loss_is_a_mean_over_samples() -> None:
    task, trainer = make_task(Focal(weight=WEIGHTS)), treadle.Trainer(run_dir=None, progress=False)
    loaders = [treadle.Loader((X, Y), size) for size in (70, 16, 1)]
    found = [trainer.evaluate(task, loader)["test/loss"] for loader in loaders]
    assert found == pytest.approx([found[0]] * 3, rel=1e-5)


def test_targets_of_any_whole_type_are_counted() -> None:
    task = make_task(nn.CrossEntropyLoss(weight=WEIGHTS))
    counts = [float(task.num_items((X, Y.to(kind)))) for kind in (torch.uint8, torch.int32, torch.int64)]
    assert counts == pytest.approx([float(WEIGHTS[Y].sum())] * 3)


def test_partials_in_a_mapping_bring_their_tensors_too() -> None:
    losses = {"ce": partial(cross_entropy, weight=WEIGHTS), "square": lambda output, _: (output**2).mean()}
    task = make_task(losses).to("meta")
    assert task.loss["ce"].given("weight").device.type == "meta"
    assert set(task.state_dict()) == {"model.0.weight", "model.0.bias"}


def test_other_arguments_of_a_partial_stay_what_they_are() -> None:
    """Whatever they are named, and modules among them are none of the task's."""
    features = nn.BatchNorm1d(3).eval()

    def loss(output: Tensor, target: Tensor, **given: Any) -> Tensor:
        assert given["forward"] == 1
        assert given["training"] is True
        assert given["function"] is features
        return cross_entropy(features(output), target, weight=given["weight"])

    task = make_task(partial(loss, weight=WEIGHTS, forward=1, training=True, function=features))
    trainer = treadle.Trainer(max_epochs=1, run_dir=None, progress=False)
    trained = trainer.fit(task, treadle.Loader((X, Y), 35))
    assert trained.history["train/loss"]
    assert not features.training
    assert not any("features" in name or "running" in name for name in task.state_dict())


@pytest.mark.parametrize("listed", [False, True])
def test_a_batch_is_prepared_once_and_where_the_model_is(listed: bool) -> None:
    """Counting items does not prepare it: that may draw, change the batch or need the device."""
    calls = 0

    class Scaling(treadle.SupervisedTask):
        def prepare_batch(self, batch: Any) -> tuple[Any, Any]:
            nonlocal calls
            calls += 1
            inputs, targets = batch.pop("inputs"), batch.pop("labels")
            return inputs.mul_(10), targets

    samples = [{"inputs": x, "labels": y} for x, y in zip(X, Y, strict=True)]
    data: Any = torch.utils.data.DataLoader(samples, 10) if listed else treadle.Loader(samples, 10)  # type: ignore[arg-type]
    task = Scaling(nn.Linear(4, 3), cross_entropy, torch.optim.SGD, lr=0.1)
    treadle.Trainer(max_epochs=1, run_dir=None, progress=False).fit(task, data)
    assert calls == 7


def test_samples_are_counted_as_samples() -> None:
    task = make_task(nn.CrossEntropyLoss(weight=WEIGHTS))
    seen: list[int] = []
    trainer = treadle.Trainer(max_epochs=1, run_dir=None, progress=False, accumulate=2)
    trainer.on("fit_end")(lambda state: seen.append(state.progress.samples))
    trainer.fit(task, treadle.Loader((X, Y), 10))
    assert seen == [70]


def test_images_without_a_box_count_like_the_others() -> None:
    """Boxes of all images in one list: their number is not that of the images."""

    def collate(samples: list[Any]) -> Any:
        numbers = torch.tensor(samples)
        return X[numbers], torch.zeros(int((numbers % 2).sum()) if samples[0] < 8 else 0, 5)

    def loss(output: Tensor, boxes: Tensor) -> Tensor:
        return (output**2).mean() + boxes.sum()

    task = treadle.SupervisedTask(nn.Linear(4, 3), loss, torch.optim.SGD, lr=0.1)
    run = treadle.Trainer(max_epochs=1, run_dir=None, progress=False).fit(
        task, treadle.Loader(range(16), 4, collate=collate)
    )
    assert torch.isfinite(torch.tensor(run.series("train/loss").values)).all()
    assert [task.num_items(collate(list(range(start, start + 4)))) for start in (0, 8)] == [4, 4]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda task: pickle.loads(pickle.dumps(task))])
def test_a_copy_of_a_task_counts_with_its_own_weights(copied: Callable[[Any], Any]) -> None:
    task = make_task(nn.CrossEntropyLoss(weight=WEIGHTS.clone()))
    other = copied(task)
    other.loss.weight.mul_(2)
    assert float(other.num_items((X, Y))) == pytest.approx(2 * float(task.num_items((X, Y))))
