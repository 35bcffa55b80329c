"""Learning-rate schedules: which scheduler, and on whose clock it ticks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from treadle import class_path

CLOCKS = ("step", "epoch")


@dataclass(frozen=True)
class Horizon:
    """How long the run will be, as far as that is known before it starts.

    Attributes:
        steps: optimizer steps in all; None where the data have no length and only epochs are given.
        steps_per_epoch: optimizer steps an epoch; None where the data have no length.
        epochs: epochs in all; None where the run is given in steps and the data have no length.
    """

    steps: int | None = None
    steps_per_epoch: int | None = None
    epochs: float | None = None


class Schedule:
    """A torch scheduler and the clock it ticks on.

    Args:
        scheduler: builds the scheduler from the optimizer: a class, a `functools.partial` of one, or a
            configuration {"class_path": ..., "init_args": ...}.
        every: "epoch" (torch's own convention) or "step".
        monitor: for `ReduceLROnPlateau`, the name of the result it watches; "val/loss" if left out.

    Raises:
        ValueError: an unknown clock.
        TypeError: `scheduler` builds nothing.
    """

    def __init__(
        self,
        scheduler: Callable[[Optimizer], Any] | Mapping[str, Any] | None,
        every: str = "epoch",
        monitor: str | None = None,
    ) -> None:
        if every not in CLOCKS:
            raise ValueError(f"Schedule: every is {every!r}; allowed are 'step' and 'epoch'")
        if isinstance(scheduler, Mapping):
            scheduler = class_path.factory(scheduler, "scheduler")
        if isinstance(scheduler, LRScheduler):
            raise TypeError(
                f"Schedule: {type(scheduler).__name__} is given as an object, bound to an optimizer made "
                "elsewhere; give the class, or functools.partial(class, arguments), or override "
                "Task.configure_schedulers"
            )
        if scheduler is not None and not callable(scheduler):
            raise TypeError(
                f"Schedule: scheduler is {scheduler!r}; give something that builds one from an optimizer"
            )
        self.every = every
        self.monitor = monitor
        self._factory = scheduler

    def build(self, optimizer: Optimizer, horizon: Horizon) -> Any:
        """Make the torch scheduler; `horizon` says how long the run is, for subclasses that need it."""
        assert self._factory is not None
        return self._factory(optimizer)

    def bind(self, optimizer: Optimizer, horizon: Horizon) -> BoundSchedule:
        """The schedule at work on one optimizer."""
        scheduler = self.build(optimizer, horizon)
        if isinstance(scheduler, ReduceLROnPlateau):
            return PlateauSchedule(scheduler, self.every, self.monitor or "val/loss")
        return BoundSchedule(scheduler, self.every)


class BoundSchedule:
    """A scheduler bound to its optimizer, ticking on one clock."""

    def __init__(self, scheduler: Any, every: str) -> None:
        self.scheduler = scheduler
        self.every = every
        # Torch warns where a schedule ticks before the first step. Ours never does; but a loss scaler may
        # have skipped that step, and a step that enters the optimizer directly does not leave torch's note.
        scheduler.optimizer._opt_called = True

    def step(self, results: Mapping[str, float]) -> None:
        """Tick once."""
        self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """The scheduler's own state."""
        return dict(self.scheduler.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the state back, in the container types that the scheduler itself uses."""
        present = self.scheduler.state_dict()
        restored = {
            key: Counter(value) if isinstance(present.get(key), Counter) else value
            for key, value in state.items()
        }
        self.scheduler.load_state_dict(restored)


class PlateauSchedule(BoundSchedule):
    """A `ReduceLROnPlateau`, which needs the value it watches."""

    def __init__(self, scheduler: Any, every: str, monitor: str) -> None:
        if every != "epoch":
            raise ValueError("Schedule: ReduceLROnPlateau ticks after evaluations; give every='epoch'")
        super().__init__(scheduler, every)
        self.monitor = monitor

    def check(self, has_validation: bool) -> None:
        """Say before training that the value it watches will never come.

        Raises:
            ValueError: it watches a validation result, and nothing is validated.
        """
        if self.monitor.startswith("val/") and not has_validation:
            raise ValueError(
                f"ReduceLROnPlateau watches {self.monitor!r}, and there are no validation data to evaluate: "
                "give some, or Schedule(..., monitor='train/loss')"
            )

    def step(self, results: Mapping[str, float]) -> None:
        """Tick with the epoch's value of the watched result; an epoch that was not evaluated does not count.

        Raises:
            ValueError: the epoch's results have no such name; the text lists those they have.
        """
        mode = self.monitor.partition("/")[0]
        if self.monitor in results:
            self.scheduler.step(results[self.monitor])
        elif any(name.startswith(f"{mode}/") for name in results):
            known = ", ".join(sorted(results))
            raise ValueError(f"ReduceLROnPlateau watches {self.monitor!r}; the epoch's results are {known}")


def as_schedule(thing: Any) -> Schedule:
    """A `Schedule` as it is; anything else becomes one that ticks every epoch, as torch documents."""
    return thing if isinstance(thing, Schedule) else Schedule(thing)
