"""Warm-up, then down as a power of what is left, or of what is done."""

from __future__ import annotations

import math

from treadle.schedules.constant import Constant
from treadle.schedules.curve import Curve
from treadle.schedules.durations import Duration, Horizon, as_duration
from treadle.schedules.linear import LinearDecay


class PolynomialDecay(LinearDecay):
    """Warm-up, then down as (1 - p) ** power.

    Args:
        power: 1 is linear, 2 falls fast at first, 0.5 at last.
        warmup, decay, final, start, total: see `LinearDecay`.

    Raises:
        ValueError: `power` is not positive.
    """

    def __init__(
        self,
        power: float,
        warmup: Duration = 0,
        decay: Duration | None = None,
        final: float = 0.0,
        start: float = 0.0,
        total: Duration | None = None,
    ) -> None:
        super().__init__(warmup, decay, final, start, total)
        if not power > 0:
            raise ValueError(f"{self._named('power')} is {power!r}; it must be positive")
        self.power = power

    def shape(self, progress: float) -> float:
        """From 1 at progress 0 to 0 at progress 1."""
        return float((1.0 - progress) ** self.power)


class InverseSquareRootDecay(Constant):
    """Warm-up, then sqrt(timescale / (s - warmup + timescale)); needs no end (Vaswani et al. 2017).

    Args:
        warmup: how long the rate rises.
        timescale: after three times so long past the warm-up, the rate is halved; None: the warm-up.
        start: the factor of the first step of the warm-up.

    Raises:
        ValueError: at the start of a fit: the timescale is 0.
    """

    def __init__(self, warmup: Duration = 0, timescale: Duration | None = None, start: float = 0.0) -> None:
        super().__init__(warmup, start)
        self.timescale = (
            self.warmup if timescale is None else as_duration(timescale, self._named("timescale"))
        )

    def after(self, warmup: int, horizon: Horizon) -> Curve:
        """Down for ever, ever slower."""
        timescale = self.timescale.steps(horizon, self._named("timescale"))
        if timescale == 0:
            raise ValueError(f"{self._named('timescale')} is 0 steps; give one, or a warm-up to take it from")
        return lambda step: math.sqrt(timescale / (max(step - warmup, 0) + timescale))
