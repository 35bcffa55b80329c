"""The task is left with the weights of the best evaluation: through resumes, averages and early stopping."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.callbacks.conftest import small_data, small_task
from torch import Tensor

import treadle
from treadle.callbacks import BestWeights, EarlyStopping, ExponentialMovingAverage
from treadle.checkpoint import read, weights_sha256

Fit = Callable[..., Any]


class Evaluated(treadle.Callback):
    """The state of the task in each evaluation."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Tensor]] = []

    def on_eval_batch_start(self, state: treadle.State) -> None:
        if len(self.seen) < state.progress.epoch + (state.progress.batch > 0):
            self.seen.append({name: value.clone() for name, value in state.task.state_dict().items()})


class Script(treadle.Callback):
    """One value of "val/score" an epoch; the number of values is the number of epochs that count."""

    order = -10.0

    def __init__(self, *values: float) -> None:
        self.values = values

    def on_eval_end(self, state: treadle.State) -> None:
        epoch = state.progress.epoch
        state.results["val/score"] = self.values[min(epoch, len(self.values)) - 1]


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("values", "mode", "best"),
    [
        ((3.0, 1.0, 2.0, 2.0), "min", 2),
        ((3.0, 1.0, 2.0, 4.0), "max", 4),
        ((1.0, 1.0, 1.0, 1.0), "min", 1),
        ((float("nan"), 2.0, float("nan"), 3.0), "min", 2),
    ],
)
@pytest.mark.parametrize("averaged", [False, True])
def test_the_task_has_the_best_weights_and_the_checkpoint_the_last(
    fit: Fit, values: tuple[float, ...], mode: str, best: int, averaged: bool
) -> None:
    seen, keeping = Evaluated(), BestWeights("val/score", mode)
    more = [ExponentialMovingAverage(0.5)] if averaged else []
    run, task = fit([keeping, Script(*values), seen, *more], "run", max_epochs=4)
    assert len(seen.seen) == 4
    assert not same(seen.seen[0], seen.seen[1])
    assert same(task.state_dict(), seen.seen[best - 1])
    assert run.weights_sha256 == weights_sha256(task.state_dict())
    assert (keeping.best, keeping.best_step) == (values[best - 1], 4 * best)
    last = {**read(run.checkpoints[-1])["model"]}
    assert same(last, seen.seen[-1]) == (not averaged)  # as trained
    if best != 4:
        assert not same(last, task.state_dict())


@pytest.mark.parametrize("averaged", [False, True])
def test_with_early_stopping_it_resumes_exactly(resumes_exactly: Callable[..., Any], averaged: bool) -> None:
    def make() -> list[treadle.Callback]:
        stopping = EarlyStopping("val/score", patience=2)
        more = [ExponentialMovingAverage(0.5)] if averaged else []
        return [Script(3.0, 1.0, 2.0, 2.0, 0.0), BestWeights("val/score"), stopping, *more]

    whole = resumes_exactly(make, cuts=(1, 4, 8, 9, 12, 14), max_epochs=5)
    assert "EarlyStopping" in whole.run.reason
    assert whole.run.epoch == 4  # and the best are from the second


def test_what_is_tested_after_the_fit_are_the_best_weights(fit: Fit) -> None:
    task = small_task()
    trainer = treadle.Trainer(
        max_epochs=4,
        run_dir=None,
        progress=False,
        callbacks=[Script(2.0, 1.0, 3.0, 3.0), BestWeights("val/score")],
    )
    data = treadle.Loader(small_data(13), 5)
    run = trainer.fit(task, treadle.Loader(small_data(), 8), data, test=data)
    assert run.series("test/loss").values[-1] == run.history["val/loss"][1]


def test_a_result_of_training_counts_epochs(fit: Fit) -> None:
    class After(treadle.Callback):
        def __init__(self) -> None:
            self.seen: list[dict[str, Tensor]] = []

        def on_epoch_end(self, state: treadle.State) -> None:
            self.seen.append({name: value.clone() for name, value in state.task.state_dict().items()})

    after = After()
    run, task = fit([after, BestWeights("train/loss")])
    losses = run.history["train/loss"]
    assert same(task.state_dict(), after.seen[losses.index(min(losses))])


def test_an_interrupted_run_keeps_its_weights(fit: Fit) -> None:
    class Interrupting(treadle.Callback):
        def on_step_end(self, state: treadle.State) -> None:
            if state.progress.step == 10:
                state.interrupt("as meant")

    task = small_task()
    with pytest.raises(treadle.Interrupted) as caught:
        fit([Script(1.0, 2.0, 3.0), BestWeights("val/score"), Interrupting()], "run", task=task)
    assert same(task.state_dict(), read(caught.value.run.checkpoints[-1])["model"])


def test_a_second_fit_begins_anew(fit: Fit) -> None:
    keeping = BestWeights("val/score")
    _, task = fit([keeping, Script(0.0, 1.0, 1.0)])
    fit([keeping, Script(6.0, 5.0, 7.0)], task=task)
    assert (keeping.best, keeping.best_step) == (5.0, 8)


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="BestWeights: mode is 'most'; allowed are 'min' and 'max'"):
        BestWeights(mode="most")
    with pytest.raises(TypeError, match="BestWeights: monitor is 3"):
        BestWeights(3)  # type: ignore[arg-type]
