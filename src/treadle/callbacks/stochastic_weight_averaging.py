"""The average over the last part of a run."""

from __future__ import annotations

from typing import Any

from treadle.callbacks.weight_averaging import WeightAveraging
from treadle.events import Every


class StochasticWeightAveraging(WeightAveraging):
    """The average of the weights after each epoch of the last part of a run (Izmailov et al. 2018).

    It goes with a learning rate that stays high in that part: give the task a constant or cyclic schedule.
    A model with BatchNorm wants `batch_norm_data`. See `WeightAveraging` for how it is evaluated and saved.

    Args:
        start: the averaging begins after this; 0.75 leaves out three quarters of the run.
        every: how often the weights are taken in.
        replace_at_end, batch_norm_data: see `WeightAveraging`.

    Raises:
        ValueError: as for `WeightAveraging`.
    """

    def __init__(
        self,
        start: int | float = 0.75,
        every: Every = Every(epochs=1),  # noqa: B008 - read, never changed
        replace_at_end: bool = True,
        batch_norm_data: Any = None,
    ) -> None:
        super().__init__(start, every, replace_at_end, batch_norm_data)
