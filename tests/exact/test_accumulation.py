"""Micro-batches never change the result: a window of small batches is the one big batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import treadle

FEATURES, CLASSES = 5, 3


def data(samples: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(samples, FEATURES, generator=generator), torch.arange(samples) % CLASSES


def fit(
    samples: int, batch_size: int, task: treadle.Task | None = None, **options: Any
) -> tuple[treadle.Run, Tensor]:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, CLASSES))
    task = task or treadle.SupervisedTask(model, cross_entropy, torch.optim.SGD, lr=0.3)
    trainer = treadle.Trainer(max_epochs=2, seed=4, run_dir=None, progress=False, **options)
    run = trainer.fit(task, treadle.Loader(data(samples), batch_size, shuffle=True))
    return run, torch.cat([parameter.detach().flatten() for parameter in task.parameters()])


@pytest.mark.parametrize(
    ("samples", "small", "accumulate"), [(24, 4, 3), (26, 4, 3), (27, 5, 4), (11, 3, 8), (7, 1, 7)]
)
def test_accumulation_equals_the_big_batch(samples: int, small: int, accumulate: int) -> None:
    """Also where the last batch is short and the last window incomplete."""
    accumulated, weights = fit(samples, small, accumulate=accumulate)
    big, expected = fit(samples, small * accumulate)
    assert torch.allclose(weights, expected, atol=1e-6, rtol=0)
    assert accumulated.step == big.step
    for name in ("train/loss",):
        assert accumulated.series(name).values == pytest.approx(big.series(name).values, abs=1e-6)
        assert accumulated.history[name] == pytest.approx(big.history[name], abs=1e-6)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 8, 100])
def test_microbatch_size_equals_none(size: int) -> None:
    whole, expected = fit(19, 8)
    run, weights = fit(19, 8, microbatch_size=size)
    assert torch.allclose(weights, expected, atol=1e-6, rtol=0)
    assert run.series("train/loss").values == pytest.approx(whole.series("train/loss").values, abs=1e-6)


@pytest.mark.parametrize(
    "options", [{"clip_norm": 0.05}, {"clip_value": 0.01}, {"clip_norm": 0.05, "clip_value": 0.02}]
)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_clipping_acts_on_the_whole_steps_gradient(options: dict[str, float], precision: str) -> None:
    """Both clips together, under the loss scaler too: gradients are unscaled before."""
    _, expected = fit(24, 12, precision=precision, **options)
    _, weights = fit(24, 4, accumulate=3, precision=precision, **options)
    _, unclipped = fit(24, 12, precision=precision)
    assert torch.allclose(weights, expected, atol=1e-6 if precision == "fp32" else 2e-3, rtol=0)
    assert not torch.allclose(weights, unclipped, atol=1e-2)


class Tokens(treadle.SupervisedTask):
    """The loss is a mean over tokens that are not padding, so batches weigh by their tokens."""

    def num_items(self, batch: Any) -> Tensor:
        return (batch[1] >= 0).sum()


def token_loss(output: Tensor, target: Tensor) -> Tensor:
    return cross_entropy(output, target, ignore_index=-1)


@pytest.mark.parametrize("microbatch_size", [None, 1, 3])
def test_a_loss_over_tokens_is_weighted_by_tokens(microbatch_size: int | None) -> None:
    inputs, _ = data(20)
    target = torch.arange(20) % CLASSES
    target[::3] = -1
    target[4:8] = -1  # a whole micro-batch of padding

    def train(batch_size: int, accumulate: int, **options: Any) -> tuple[treadle.Run, Tensor]:
        torch.manual_seed(3)
        task = Tokens(nn.Linear(FEATURES, CLASSES), token_loss, torch.optim.SGD, lr=0.3)
        trainer = treadle.Trainer(
            max_epochs=2, seed=4, accumulate=accumulate, run_dir=None, progress=False, **options
        )
        run = trainer.fit(task, treadle.Loader((inputs, target), batch_size))
        return run, torch.cat([parameter.detach().flatten() for parameter in task.parameters()])

    big, expected = train(12, 1)
    run, weights = train(4, 3, microbatch_size=microbatch_size)
    assert torch.allclose(weights, expected, atol=1e-6, rtol=0)
    assert run.series("train/loss").values == pytest.approx(big.series("train/loss").values, abs=1e-6)


def test_the_mean_over_an_epoch_is_weighted_by_items() -> None:
    """Batches of 8, 8 and 3 samples: the mean of the three means is another number."""
    inputs, targets = data(19)
    torch.manual_seed(3)
    task = treadle.SupervisedTask(nn.Linear(FEATURES, CLASSES), cross_entropy, torch.optim.SGD, lr=1e-12)
    trainer = treadle.Trainer(max_epochs=1, seed=0, run_dir=None, progress=False)
    run = trainer.fit(task, treadle.Loader((inputs, targets), 8), treadle.Loader((inputs, targets), 8))
    with torch.no_grad():
        expected = cross_entropy(task.model(inputs), targets).item()
    assert run.history["train/loss"][0] == pytest.approx(expected, abs=1e-7)
    assert run.history["val/loss"][0] == pytest.approx(expected, abs=1e-7)
    assert trainer.evaluate(task, (inputs, targets))["test/loss"] == pytest.approx(expected, abs=1e-7)


class Narrow(nn.Module):
    """A model whose memory holds only so many samples at a time while it trains."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.layers = nn.Sequential(
            nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, CLASSES)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = self.layers(inputs)
        if self.training and len(inputs) > self.room:
            raise torch.OutOfMemoryError(f"no room for {len(inputs)}")
        return output


def test_auto_finds_what_fits_and_leaves_no_trace_of_trying() -> None:
    def train(**options: Any) -> tuple[treadle.Run, Tensor]:
        torch.manual_seed(3)
        metrics = {"accuracy": treadle.metrics.Accuracy()}
        task = treadle.SupervisedTask(Narrow(room=5), cross_entropy, torch.optim.SGD, lr=0.3, metrics=metrics)
        trainer = treadle.Trainer(max_epochs=2, seed=4, run_dir=None, progress=False, **options)
        run = trainer.fit(task, treadle.Loader(data(24), 12, shuffle=True))
        return run, torch.cat([value.flatten().float() for value in task.state_dict().values()])

    with pytest.warns(UserWarning, match="out of memory with micro-batches of") as said:
        found, weights = train(microbatch_size="auto")
    assert len(said) == 2  # from 12 to 6 to 3, once
    given, expected = train(microbatch_size=3)
    assert torch.equal(weights, expected)
    assert found.history["train/accuracy"] == given.history["train/accuracy"]
    assert found.series("train/loss").values.tolist() == given.series("train/loss").values.tolist()


def test_auto_gives_up_where_one_sample_does_not_fit() -> None:
    task = treadle.SupervisedTask(Narrow(room=0), cross_entropy, torch.optim.SGD, lr=0.3)
    trainer = treadle.Trainer(max_epochs=1, seed=4, run_dir=None, progress=False, microbatch_size="auto")
    with (
        pytest.warns(UserWarning, match="out of memory"),
        pytest.raises((torch.OutOfMemoryError, ValueError), match=r"no room for 1|more than 1 value"),
    ):
        trainer.fit(task, treadle.Loader(data(24), 12, shuffle=True))


class Weighted(treadle.SupervisedTask):
    """Samples with weights, which here add up to far less than one in a step."""

    def num_items(self, batch: Any) -> Tensor:
        return batch[1][:, 1].sum()  # type: ignore[no-any-return]


def weighted_loss(output: Tensor, target: Tensor) -> Tensor:
    losses = cross_entropy(output, target[:, 0].long(), reduction="none")
    return (losses * target[:, 1]).sum() / target[:, 1].sum()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_items_may_be_fractions(scale: float) -> None:
    """Weights of 0.001 train as weights of 1 do, also where they are counted on the device."""
    inputs, classes = data(24)
    weights = torch.linspace(0.1, 1, 24)
    trained = []
    for factor, options in ((1.0, {}), (scale, {}), (scale, {"microbatch_size": 5})):
        torch.manual_seed(3)
        task = Weighted(nn.Linear(FEATURES, CLASSES), weighted_loss, torch.optim.SGD, lr=0.3)
        targets = torch.stack([classes.float(), factor * weights], dim=1)
        trainer = treadle.Trainer(max_epochs=2, seed=4, run_dir=None, progress=False, **options)
        run = trainer.fit(task, treadle.Loader((inputs, targets), 12, shuffle=True))
        trained.append((run.history["train/loss"], task.model.weight.detach()))
    for losses, found in trained[1:]:
        assert losses == pytest.approx(trained[0][0], rel=1e-5)
        assert torch.allclose(found, trained[0][1], atol=1e-6)
