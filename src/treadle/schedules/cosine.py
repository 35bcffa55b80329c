"""Warm-up, then down on a cosine, once or again and again."""

from __future__ import annotations

import math

from treadle.schedules.durations import Duration
from treadle.schedules.linear import LinearDecay


class CosineDecay(LinearDecay):
    """Warm-up, then half a cosine from the optimizer's rate to `final` (Loshchilov and Hutter 2017).

    The arguments are those of `LinearDecay`.
    """

    def shape(self, progress: float) -> float:
        """From 1 at progress 0 to 0 at progress 1, flat at both ends."""
        return 0.5 * (1.0 + math.cos(math.pi * progress))


class CosineWithRestarts(CosineDecay):
    """Warm-up, then `cycles` half cosines of equal length, each from the full rate down to `final`.

    Args:
        cycles: how many.
        warmup, decay, final, start, total: see `LinearDecay`.

    Raises:
        ValueError: `cycles` is not a whole number from 1.
    """

    def __init__(
        self,
        cycles: int,
        warmup: Duration = 0,
        decay: Duration | None = None,
        final: float = 0.0,
        start: float = 0.0,
        total: Duration | None = None,
    ) -> None:
        super().__init__(warmup, decay, final, start, total)
        if isinstance(cycles, bool) or not isinstance(cycles, int) or cycles < 1:
            raise ValueError(f"{self._named('cycles')} is {cycles!r}; it must be a whole number from 1")
        self.cycles = cycles

    def shape(self, progress: float) -> float:
        """A half cosine in each cycle."""
        return super().shape((self.cycles * progress) % 1.0)
