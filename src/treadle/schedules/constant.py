"""Warm-up, then a constant rate: the base of all schedules that are curves over the run."""

from __future__ import annotations

import functools
from typing import Any

from torch.optim import Optimizer

from treadle.described import attributes_of, name_of
from treadle.schedules.base import Schedule
from treadle.schedules.curve import Curve, CurveScheduler
from treadle.schedules.durations import Duration, Horizon, as_duration


class Constant(Schedule):
    """Linear warm-up, then the optimizer's own learning rate (Goyal et al. 2017).

    All curves tick with the steps of their optimizer, and say the rate of step s + 1 as a factor on the
    optimizer's own, a pure function of the number s of steps done. Subclasses say how it goes on after the
    warm-up. Durations are steps (an int or `Steps`), a fraction of the run (a float or `Fraction`),
    `Epochs`, or a text ("2 epochs").

    Args:
        warmup: how long the rate rises.
        start: the factor of the first step; with 0, as is usual, the first step changes nothing.

    Raises:
        TypeError, ValueError: an argument is out of range; at the start of a fit: the warm-up is longer than
            the run, or cannot be counted in steps.
    """

    def __init__(self, warmup: Duration = 0, start: float = 0.0) -> None:
        super().__init__(functools.partial(CurveScheduler, curve=_one), every="step")
        self.warmup = as_duration(warmup, self._named("warmup"))
        self.start = check_factor(start, self._named("start"))

    def build(self, optimizer: Optimizer, horizon: Horizon) -> CurveScheduler:
        """The scheduler of this optimizer for a run so long."""
        return CurveScheduler(optimizer, self.curve(horizon))

    def settings(self, scheduler: Any) -> dict[str, Any]:
        """What the record says of it: its own arguments, since a curve keeps nothing else."""
        return {"curve": name_of(self), **attributes_of(self)}

    def curve(self, horizon: Horizon) -> Curve:
        """The factor on the learning rate as a function of the steps done.

        Raises:
            ValueError: the run's length is needed and not known, or the parts are longer than it.
        """
        start, warmup = self.start, self.warmup.steps(horizon, self._named("warmup"))
        if horizon.steps is not None and warmup > max(horizon.steps, 1):
            raise ValueError(f"{self._named('warmup')} lasts {warmup} steps, and the run has {horizon.steps}")
        follow = self.after(warmup, horizon)
        if warmup == 0:
            return follow
        return lambda step: (
            (start + (1 - start) * step / warmup) * follow(step) if step < warmup else follow(step)
        )

    def after(self, warmup: int, horizon: Horizon) -> Curve:
        """The curve once the warm-up of so many steps is over; it multiplies the warm-up before."""
        return _one

    def _named(self, argument: str) -> str:
        return f"{type(self).__name__}: {argument}"


def _one(step: int) -> float:
    return 1.0


def check_factor(value: float, what: str) -> float:
    """The value as it is.

    Raises:
        ValueError: it is not from 0 to 1.
    """
    if isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError(f"{what} is {value!r}; it must be from 0 to 1, a factor on the learning rate")
    return value
