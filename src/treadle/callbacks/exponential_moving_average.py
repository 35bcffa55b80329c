"""An average that forgets."""

from __future__ import annotations

from typing import Any

from treadle.callbacks.weight_averaging import WeightAveraging
from treadle.events import Every


class ExponentialMovingAverage(WeightAveraging):
    """The exponential moving average of the weights: average = decay * average + (1 - decay) * weights.

    The first weights that are taken in are the average. See `WeightAveraging` for how it is evaluated and
    saved.

    Args:
        decay: how much of the average stays each time, from 0 to below 1.
        ramp: in the beginning use (1 + n) / (10 + n) after n updates where that is smaller than `decay`, so
            that the first weights are soon forgotten (Abadi et al. 2016, TensorFlow's `num_updates`).
        start, every, replace_at_end, batch_norm_data: see `WeightAveraging`.

    Raises:
        ValueError: `decay` is out of range, or as for `WeightAveraging`.
    """

    def __init__(
        self,
        decay: float = 0.999,
        ramp: bool = False,
        start: int | float = 0,
        every: Every = Every(steps=1),  # noqa: B008 - read, never changed
        replace_at_end: bool = True,
        batch_norm_data: Any = None,
    ) -> None:
        super().__init__(start, every, replace_at_end, batch_norm_data)
        if not 0 <= decay < 1:
            raise ValueError(f"ExponentialMovingAverage: decay is {decay!r}; it must be from 0 to below 1")
        self.decay = decay
        self.ramp = ramp

    def share(self, count: int) -> float:
        """The part of the present weights."""
        if count == 0:
            return 1.0
        decay = min(self.decay, (1 + count) / (10 + count)) if self.ramp else self.decay
        return 1.0 - decay
