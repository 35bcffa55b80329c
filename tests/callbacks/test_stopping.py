"""Early stopping, thresholds, non-finite values, collapsed predictions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import treadle
from treadle.callbacks import (
    EarlyStopping,
    HistoryInsertion,
    IdenticalPredictions,
    NonFinitePolicy,
    ThresholdStopping,
)


class Script(treadle.Callback):
    """Replaces a result by scripted values, one an evaluation."""

    order = -10.0

    def __init__(self, values: list[float], name: str = "val/score") -> None:
        self.values, self.key, self.count = values, name, 0

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]

    def on_eval_end(self, state: treadle.State) -> None:
        state.results[self.key] = self.values[self.count]
        self.count += 1


@pytest.mark.parametrize(
    ("values", "options", "epochs"),
    [
        ([3, 2, 1, 1, 1, 1], {"patience": 2}, 5),
        ([3, 2, 2.5, 1.5, 2, 2, 2], {"patience": 3}, 7),
        ([1, 2, 3, 3, 2, 5], {"patience": 2, "mode": "max"}, 5),
        ([3, 2.95, 2.9, 2.5], {"patience": 2, "min_delta": 0.2}, 3),
        ([float("nan"), 2, float("nan"), 1, float("nan"), float("nan")], {"patience": 2}, 6),
        ([1, 1], {"patience": 1}, 2),
    ],
)
def test_early_stopping_counts_evaluations_without_improvement(
    fit: Callable[..., Any], values: list[float], options: dict[str, Any], epochs: int
) -> None:
    run, _ = fit(
        [Script([*values, *[0.0] * 9]), EarlyStopping("val/score", **options)], max_epochs=epochs + 2
    )
    assert run.epoch == epochs
    assert "val/score has not improved" in run.reason
    assert run.status == "stopped"


def test_early_stopping_survives_a_restart_and_stays_stopped(
    fit: Callable[..., Any], resumes_exactly: Callable[..., Any]
) -> None:
    def make() -> list[treadle.Callback]:
        return [Script([3.0, 2.0, 2.5, 2.1, 2.2, 1.0, 1.0]), EarlyStopping("val/score", patience=3)]

    run, _ = resumes_exactly(make, cuts=(5, 13), max_epochs=7)
    assert run.epoch == 5
    again, _ = fit(make(), "whole", resume=run.path, max_epochs=7)
    assert again.step == 20
    assert again.reason == run.reason
    more, _ = fit([make()[0], EarlyStopping("val/score", patience=4)], "whole", resume=run.path, max_epochs=7)
    assert more.epoch == 7


def test_a_callback_used_for_two_fits_begins_anew(fit: Callable[..., Any]) -> None:
    stopping = EarlyStopping("val/score", patience=1)
    assert fit([Script([1.0, 1.0, 1.0]), stopping])[0].epoch == 2
    assert fit([Script([1.0, 0.5, 0.5]), stopping])[0].epoch == 3


def test_an_evaluation_outside_of_a_fit_is_not_watched(fit: Callable[..., Any]) -> None:
    stopping = EarlyStopping("val/loss", patience=9)
    _, task = fit([stopping])
    kept = stopping.state_dict()
    trainer = treadle.Trainer(max_epochs=1, callbacks=[stopping], progress=False, device="cpu")
    trainer.evaluate(task, (torch.randn(6, 5) * 9, torch.arange(6) % 3), name="val")
    assert stopping.state_dict() == kept


def test_evaluations_between_epochs_count_once_each(fit: Callable[..., Any]) -> None:
    """Steps 2, 4 (also the epoch's end, evaluated twice), 6: the third value in a row stops at step 6."""
    script = Script([1.0, 2.0, 0.1, 2.0, 2.0])
    every = treadle.Every(steps=2, epochs=1)
    run, _ = fit([script, EarlyStopping("val/score", patience=2)], eval_every=every)
    assert run.step == 6


def test_a_training_result_is_watched_after_each_epoch_without_validation(fit: Callable[..., Any]) -> None:
    run, _ = fit([EarlyStopping("train/loss", min_delta=100.0, patience=1)], val=None)
    assert run.epoch == 2
    inserted = HistoryInsertion(lambda state: {"own/score": 1.0})
    run, _ = fit([EarlyStopping("own/score", patience=1), inserted], val=None)
    assert run.epoch == 2


def test_unknown_monitors_list_the_known(fit: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"'val/acuracy'.*Known results: .*val/accuracy, val/loss"):
        fit([EarlyStopping("val/acuracy")])
    with pytest.raises(ValueError, match=r"'loss'.*Known results: learning_rate, train/accuracy, train/loss"):
        fit([ThresholdStopping("loss", above=1.0)], val=None)
    with pytest.raises(ValueError, match="nothing is evaluated"):
        fit([EarlyStopping("val/loss")], val=None)
    with pytest.raises(ValueError, match="nothing is evaluated"):
        fit([EarlyStopping("val/loss")], eval_every=None)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: EarlyStopping(mode="best"), "mode is 'best'; allowed are 'min' and 'max'"),
        (lambda: EarlyStopping(patience=0), "patience is 0"),
        (lambda: EarlyStopping(min_delta=-1.0), "min_delta is -1.0"),
        (lambda: EarlyStopping(monitor=""), "monitor is ''"),
        (lambda: ThresholdStopping("val/loss"), "above"),
        (lambda: ThresholdStopping("val/loss", above=1.0, below=2.0), "any value would stop"),
        (lambda: NonFinitePolicy("ignore"), "'raise', 'stop', 'skip'"),
        (lambda: NonFinitePolicy("skip", names=["train/loss"]), "none with 'skip'"),
        (lambda: NonFinitePolicy("skip", most_skips=0), "most_skips is 0"),
        (lambda: IdenticalPredictions(tolerance=-1.0), "tolerance"),
    ],
)
def test_constructors_say_what_is_allowed(make: Callable[[], treadle.Callback], said: str) -> None:
    with pytest.raises((ValueError, TypeError), match=said):
        make()


def test_threshold_stopping(fit: Callable[..., Any], resumes_exactly: Callable[..., Any]) -> None:
    def make() -> list[treadle.Callback]:
        return [Script([0.1, 0.95, 0.2, 0.2]), ThresholdStopping("val/score", above=0.9)]

    run, _ = resumes_exactly(make, cuts=(2, 5))
    assert (run.epoch, run.reason) == (2, "val/score is 0.95, above 0.9 (ThresholdStopping)")
    assert fit(make(), "whole", resume=run.path)[0].step == 8
    low, _ = fit([Script([0.5, float("nan"), 0.2]), ThresholdStopping("val/score", below=0.3)], max_epochs=9)
    assert low.epoch == 3


class Poisoned(treadle.SupervisedTask):
    """Its loss is NaN at given steps."""

    bad: tuple[int, ...] = ()

    def compute_loss(self, batch: Any, state: treadle.State) -> Any:
        loss = super().compute_loss(batch, state)
        poisoned = state.mode == "train" and state.current_step in self.bad
        return loss * float("nan") if poisoned else loss


def poisoned(*bad: int, **options: Any) -> Poisoned:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    task = Poisoned(model, nn.CrossEntropyLoss(), torch.optim.Adam, lr=0.05, **options)
    task.bad = bad
    return task


def test_raising_and_stopping_at_log_boundaries(fit: Callable[..., Any], tmp_path: Any) -> None:
    with pytest.raises(FloatingPointError, match="train/loss is nan at step 6"):
        fit([NonFinitePolicy()], "raised", task=poisoned(6))
    saved = [path.name for path in treadle.Run.open(tmp_path / "raised").checkpoints]
    assert saved[-1] == "step-00000005"  # no checkpoint holds what came of it
    run, _ = fit([NonFinitePolicy("stop")], task=poisoned(6), log_every=1)
    assert (run.step, run.reason) == (6, "train/loss is nan at step 6 (NonFinitePolicy)")
    run, _ = fit([NonFinitePolicy("stop", names=["train/other"])], task=poisoned(6))
    assert run.step == 12


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_skipped_step_changes_nothing(
    fit: Callable[..., Any], resumes_exactly: Callable[..., Any], precision: str
) -> None:
    run, _ = resumes_exactly(
        lambda: [NonFinitePolicy("skip")], task=lambda: poisoned(6), precision=precision, cuts=(5, 7)
    )
    assert [(event.kind, event.step) for event in run.events][:1] == [("step_skipped", 6)]
    assert run.series("train/loss").steps.tolist() == [1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12]
    assert all(loss == loss for loss in run.history["train/loss"])

    class Cancel(treadle.Callback):
        def on_before_optimizer_step(self, state: treadle.State) -> None:
            if state.current_step == 6:
                raise treadle.CancelStep

    if precision == "fp32":
        assert fit([Cancel()], task=poisoned())[0].weights_sha256 == run.weights_sha256


def test_gradients_that_are_not_finite_are_skipped_too(fit: Callable[..., Any]) -> None:
    class Spoil(treadle.Callback):
        order = -1.0

        def on_before_optimizer_step(self, state: treadle.State) -> None:
            if state.current_step == 3:
                next(state.task.parameters()).grad[0, 0] = float("inf")

    policy = NonFinitePolicy("skip")
    _, task = fit([Spoil(), policy], accumulate=2)
    assert policy.skipped == 1
    assert all(torch.isfinite(p).all() for p in task.parameters())
    with pytest.raises(FloatingPointError, match="the 2 steps before it"):
        fit([NonFinitePolicy("skip", most_skips=2)], task=poisoned(*range(4, 12)))


def test_identical_predictions_stop_the_fit(fit: Callable[..., Any]) -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.tensor([0.0, 1.0, 0.0]))

        def forward(self, inputs: Tensor) -> Tensor:
            return inputs[:, :3] * 1e-3 + self.bias

    task = treadle.SupervisedTask(Constant(), nn.CrossEntropyLoss(), torch.optim.SGD, lr=1e-3)
    run, _ = fit([IdenticalPredictions()], task=task)
    assert run.epoch == 1
    assert run.reason == "all 13 predictions of the evaluation 'val' are the same (IdenticalPredictions)"
    asked = []
    fit([IdenticalPredictions(predictions=lambda output: asked.append(output) or output)], max_epochs=1)
    assert len(asked) == 3  # the batches of the evaluation, none of training
    # The scores themselves differ, so with these as the predictions nothing has collapsed.
    assert fit([IdenticalPredictions(predictions=lambda output: output)], task=task)[0].epoch == 3
    spread = IdenticalPredictions(predictions=lambda output: output, tolerance=0.1)
    assert fit([spread], task=task)[0].epoch == 1
    assert fit([IdenticalPredictions()])[0].epoch == 3  # a model that does tell its inputs apart


def test_identical_predictions_of_a_regression_and_of_a_task_without_output(fit: Callable[..., Any]) -> None:
    inputs = torch.randn(12, 5)
    zero = nn.Linear(5, 1)
    nn.init.zeros_(zero.weight)
    task = treadle.SupervisedTask(zero, nn.MSELoss(), torch.optim.SGD, lr=1e-9)
    nn.init.zeros_(zero.bias)
    targets = torch.zeros(12, 1)
    assert (
        fit([IdenticalPredictions()], task=task, train=(inputs, targets), val=(inputs, targets))[0].epoch == 1
    )

    class Silent(treadle.Task):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(5, 1)

        def compute_loss(self, batch: Any, state: treadle.State) -> Tensor:
            return self.layer(batch[0]).square().mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    with pytest.raises(ValueError, match="Silent does not call the on_after_forward hooks"):
        fit([IdenticalPredictions()], task=Silent(), train=(inputs, targets), val=(inputs, targets))


def test_all_ranks_must_have_seen_the_same() -> None:
    def told(low: list[float] | None, answers: list[list[float]]) -> bool:
        replies = iter(answers)
        return IdenticalPredictions()._ranks_agree(low, lambda numbers: next(replies))

    assert told([2.0], [[2.0], [2.0], [4.0], [0.0]])  # two ranks, both say class 2
    assert not told([2.0], [[2.0], [2.0], [5.0], [2.0]])  # the other rank says class 3
    assert told(None, [[1.0]])  # only one rank has samples
