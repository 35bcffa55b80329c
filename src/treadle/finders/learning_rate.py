"""Which learning rate: try them all, from far too small to far too large, in one short run."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch.optim import Optimizer

from treadle.events import Callback
from treadle.finders.finding import Finding
from treadle.finders.sources import check_repeatable
from treadle.finders.untouched import untouched
from treadle.schedules import CurveScheduler, Horizon, Schedule
from treadle.state import State
from treadle.task import Task
from treadle.trainer import Trainer


def find_learning_rate(
    trainer: Trainer,
    task: Task,
    train: Any,
    *,
    low: float = 1e-7,
    high: float = 10.0,
    factor: float = 1.25,
    stop_at: float = 3.0,
    smoothing: float = 0.0,
    monitor: str = "train/loss",
    optimizer: str | None = None,
) -> Finding:
    """Train for a few steps with a learning rate that rises at each, and see where the loss falls.

    The learning-rate range test (Smith 2017). Task, data, generators and trainer are afterwards exactly as
    they were, also where the search fails: a fit that follows is bit for bit the one without it. The steps
    are the trainer's (precision, accumulation, clipping), over as many epochs as it takes; its callbacks,
    checkpoints and record, and the task's schedules, take no part. Parameter groups keep the proportion of
    their rates; those found are the largest group's.

    Args:
        trainer: how to train.
        task: what is trained.
        train: the training data, as for `Trainer.fit`.
        low: the first rate.
        high: no rate is above this.
        factor: what the rate is multiplied by after each step.
        stop_at: stop where the loss is so many times its minimum so far (for a negative one, as far above).
        smoothing: the weight of the past in a moving average of the losses (corrected for its beginning)
            that is judged instead of each loss; 0 judges the losses themselves. For noisy ones: 0.5 to 0.9.
        monitor: the logged value that is watched.
        optimizer: whose rate, by name, where the task has several; the others keep theirs.

    Returns:
        Rates, losses, a suggestion and a plot. The search also stops at a loss that is not finite.

    Raises:
        ValueError: an argument is out of range; the loss is not finite at the first rate already; nothing is
            logged under `monitor`; or there are several optimizers, and none is named.
    """
    _check(low, high, factor, stop_at, smoothing)
    check_repeatable(train)
    watch = Watch(monitor, stop_at, smoothing)
    steps = math.floor(math.log(high / low) / math.log(factor) + 1e-9) + 1
    runner = trainer.replace(
        max_epochs=None,
        max_steps=steps,
        run_dir=None,
        checkpoint=None,
        callbacks=[watch],
        progress=False,
        log_every=1,
        eval_every=None,
        compile=False,
        seed=trainer.seed or 0,
    )
    if runner.device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call] # so that its generators are there to be kept
    with untouched(task, train, trainer.precision):
        schedule = RisingRate(low, factor)
        # An attribute of the task, gone with everything else that the search leaves on it.
        task.configure_schedulers = functools.partial(_schedules, task, schedule, optimizer, watch)  # type: ignore[method-assign]
        runner.fit(task, train)
    return Finding(
        watch.rates, watch.losses, watch.smoothed, watch.reason or f"all rates up to {high:g} tried"
    )


class RisingRate(Schedule):
    """The rate of step s + 1 is low * factor ** s, in the group with the largest rate."""

    def __init__(self, low: float, factor: float) -> None:
        super().__init__(functools.partial(CurveScheduler, curve=lambda step: factor**step), every="step")
        self.low = low

    def build(self, optimizer: Optimizer, horizon: Horizon) -> Any:
        """The scheduler; the groups' own rates give way to their proportions times the lowest rate."""
        largest = max(float(group["lr"]) for group in optimizer.param_groups)
        for group in optimizer.param_groups:
            group["initial_lr"] = self.low * (float(group["lr"]) / largest if largest else 1.0)
        return super().build(optimizer, horizon)


class Watch(Callback):
    """Notes each step's rate and loss, and asks to stop where there is no more to learn."""

    def __init__(self, monitor: str, stop_at: float, smoothing: float) -> None:
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.smoothed: list[float] = []
        self.reason: str | None = None
        self.optimizer = ""
        self._monitor = monitor
        self._stop_at = stop_at
        self._smoothing = smoothing
        self._average = 0.0

    def on_step_start(self, state: State) -> None:
        """The rate that the step is taken with."""
        groups = state.optimizers[self.optimizer].param_groups
        self.rates.append(max(float(group["lr"]) for group in groups))

    def on_step_end(self, state: State) -> None:
        """The loss before the step was taken."""
        if self._monitor not in state.latest:
            raise ValueError(
                f"find_learning_rate: nothing is logged as {self._monitor!r}; give as monitor one of "
                f"{sorted(state.latest)}"
            )
        loss = state.latest[self._monitor]
        self.losses.append(loss)
        self._average = self._smoothing * self._average + (1 - self._smoothing) * loss
        self.smoothed.append(self._average / (1 - self._smoothing ** len(self.losses)))
        if len(self.losses) == 1 and not math.isfinite(loss):
            raise ValueError(
                f"find_learning_rate: {self._monitor} is {loss} before the first step; no rate changes that"
            )
        best = min(value for value in self.smoothed if math.isfinite(value))
        limit = best + (self._stop_at - 1) * abs(best)
        if not math.isfinite(loss):
            self._stop(state, f"the loss is {loss} at {self.rates[-1]:.3g}")
        elif self.smoothed[-1] > limit:
            self._stop(state, f"the loss is over {self._stop_at:g} times its minimum at {self.rates[-1]:.3g}")

    def _stop(self, state: State, reason: str) -> None:
        self.reason = reason
        state.request_stop(reason)


def _schedules(task: Task, schedule: Schedule, optimizer: str | None, watch: Watch) -> dict[str, Schedule]:
    """The rising rate for the optimizer that is searched for; called when they are made."""
    names = list(task.optimizers)
    if optimizer is None and len(names) > 1:
        raise ValueError(f"find_learning_rate: give as optimizer one of {names}")
    if optimizer is not None and optimizer not in names:
        raise ValueError(f"find_learning_rate: there is no optimizer {optimizer!r}; the task has {names}")
    watch.optimizer = names[0] if optimizer is None else optimizer
    return {watch.optimizer: schedule}


def _check(low: float, high: float, factor: float, stop_at: float, smoothing: float) -> None:
    if not 0 < low < high < math.inf:
        raise ValueError(f"find_learning_rate: low={low!r}, high={high!r}; they must be 0 < low < high")
    if not 1 < factor < math.inf:
        raise ValueError(f"find_learning_rate: factor is {factor!r}; it must be above 1")
    if not stop_at > 1:
        raise ValueError(f"find_learning_rate: stop_at is {stop_at!r}; it must be above 1")
    if not 0 <= smoothing < 1:
        raise ValueError(f"find_learning_rate: smoothing is {smoothing!r}; it must be from 0 to below 1")
