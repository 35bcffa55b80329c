"""Stop when a result is good enough, or too bad."""

from __future__ import annotations

from treadle.callbacks.monitor import Monitor
from treadle.state import State


class ThresholdStopping(Monitor):
    """End the fit once a result is above or below a number.

    Args:
        monitor: the full name of a result: "val/accuracy" is looked at after evaluations, "train/loss"
            after epochs.
        above: stop when it is larger than this.
        below: stop when it is smaller than this.

    Raises:
        ValueError: neither is given, or no value lies between them.
    """

    def __init__(self, monitor: str, above: float | None = None, below: float | None = None) -> None:
        super().__init__(monitor)
        if above is None and below is None:
            raise ValueError("ThresholdStopping: give above=..., below=..., or both")
        if above is not None and below is not None and below > above:
            raise ValueError(
                f"ThresholdStopping: below={below!r} is larger than above={above!r}; any value would stop"
            )
        self.above = above
        self.below = below

    def on_fit_start(self, state: State) -> None:
        """A run that was stopped does not train one epoch more."""
        super().on_fit_start(state)
        if state.progress.step > 0 and self.monitor in state.results:
            self.watch(state.results[self.monitor], state)

    def watch(self, value: float, state: State) -> None:
        """Compare with the thresholds; NaN is neither above nor below."""
        if self.above is not None and value > self.above:
            state.request_stop(f"{self.monitor} is {value:.6g}, above {self.above:g} (ThresholdStopping)")
        if self.below is not None and value < self.below:
            state.request_stop(f"{self.monitor} is {value:.6g}, below {self.below:g} (ThresholdStopping)")
