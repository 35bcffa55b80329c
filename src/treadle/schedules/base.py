"""Which scheduler, and on whose clock it ticks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from treadle import class_path
from treadle.described import attributes_of, name_of
from treadle.schedules.bound import BoundSchedule, PlateauSchedule
from treadle.schedules.durations import Horizon

CLOCKS = ("step", "epoch")
_MOVING = (
    *("optimizer", "base_lrs", "last_epoch", "T_cur", "T_i", "verbose"),
    *("best", "num_bad_epochs", "cooldown_counter", "mode_worse"),
)
"""Attributes of torch's schedulers that are no settings."""


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

    starts_anew = True
    """Whether a further fit of the same task begins it again, from the rate its optimizer was made with."""

    def __init__(
        self,
        scheduler: Callable[[Optimizer], Any] | Mapping[str, Any],
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
        if not callable(scheduler):
            raise TypeError(
                f"Schedule: scheduler is {scheduler!r}; give something that builds one from an optimizer"
            )
        self.every = every
        self.monitor = monitor
        self._factory = scheduler

    def build(self, optimizer: Optimizer, horizon: Horizon) -> Any:
        """Make the torch scheduler; `horizon` says how long the run is, for subclasses that need it."""
        return self._factory(optimizer)

    def bind(self, optimizer: Optimizer, horizon: Horizon) -> BoundSchedule:
        """The schedule at work on one optimizer."""
        scheduler = self.build(optimizer, horizon)
        if isinstance(scheduler, ReduceLROnPlateau):
            bound: BoundSchedule = PlateauSchedule(scheduler, self.every, self.monitor or "val/loss")
        else:
            bound = BoundSchedule(scheduler, self.every)
        bound.settings = self.settings(scheduler)
        return bound

    def settings(self, scheduler: Any) -> dict[str, Any]:
        """What the record says of it, as plain data: here what torch's scheduler was made with."""
        made = attributes_of(scheduler, without=_MOVING)
        return {"scheduler": name_of(scheduler), "every": self.every, "monitor": self.monitor, **made}


class GivenSchedule(Schedule):
    """A torch scheduler that was built already, for the very optimizer: it goes on from fit to fit."""

    starts_anew = False

    def __init__(self, scheduler: LRScheduler | ReduceLROnPlateau) -> None:
        super().__init__(lambda _: scheduler)


def as_schedule(thing: Any) -> Schedule:
    """A `Schedule` from whatever a person gives for one.

    Args:
        thing: a `Schedule` as it is, the class of one that needs no arguments, or the configuration of one.
            Anything else builds a torch scheduler, and ticks every epoch, as torch documents.
    """
    if isinstance(thing, Schedule):
        return thing
    if class_path.is_specification(thing):
        thing = class_path.factory(thing, "scheduler")
    made = getattr(thing, "func", thing)
    if isinstance(made, type) and issubclass(made, Schedule):
        schedule: Schedule = thing()
        return schedule
    return Schedule(thing)
