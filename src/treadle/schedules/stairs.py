"""A constant rate that falls by a factor now and then."""

from __future__ import annotations

import bisect
from collections.abc import Iterable

from treadle.schedules.constant import Constant
from treadle.schedules.curve import Curve
from treadle.schedules.durations import Duration, Horizon, as_duration


class StepDecay(Constant):
    """The rate is multiplied by `factor` after every `every`.

    Args:
        every: the time between two falls.
        factor: what the rate is multiplied by.
        warmup, start: see `Constant`.

    Raises:
        ValueError: `factor` is not positive; at the start of a fit: `every` is 0 steps.
    """

    def __init__(
        self, every: Duration, factor: float = 0.1, warmup: Duration = 0, start: float = 0.0
    ) -> None:
        super().__init__(warmup, start)
        self.interval = as_duration(every, self._named("every"))
        self.factor = _positive(factor, self._named("factor"))

    def after(self, warmup: int, horizon: Horizon) -> Curve:
        """factor ** (falls so far)."""
        factor, interval = self.factor, self.interval.steps(horizon, self._named("every"))
        if interval == 0:
            raise ValueError(f"{self._named('every')} is 0 steps; give at least one")
        return lambda step: factor ** (step // interval)


class MultiStepDecay(Constant):
    """The rate is multiplied by `factor` at each milestone.

    Args:
        milestones: when, in any order.
        factor: what the rate is multiplied by.
        warmup, start: see `Constant`.

    Raises:
        ValueError: `factor` is not positive.
    """

    def __init__(
        self, milestones: Iterable[Duration], factor: float = 0.1, warmup: Duration = 0, start: float = 0.0
    ) -> None:
        super().__init__(warmup, start)
        self.milestones = [as_duration(one, self._named("milestones")) for one in milestones]
        self.factor = _positive(factor, self._named("factor"))

    def after(self, warmup: int, horizon: Horizon) -> Curve:
        """factor ** (milestones passed)."""
        factor = self.factor
        marks = sorted(one.steps(horizon, self._named("milestones")) for one in self.milestones)
        return lambda step: factor ** bisect.bisect_right(marks, step)


def _positive(factor: float, what: str) -> float:
    if not factor > 0:
        raise ValueError(f"{what} is {factor!r}; it must be positive")
    return factor
