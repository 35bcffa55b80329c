"""Losses that are not the mean over samples: cuts and processes must not change what they come to."""

from __future__ import annotations

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
    assert task.loss.weight.device.type == "meta"
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
