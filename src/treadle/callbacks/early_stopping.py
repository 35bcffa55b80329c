"""Stop when a result no longer improves."""

from __future__ import annotations

from typing import Any

from treadle.callbacks.monitor import Monitor, check_mode, improves
from treadle.state import State


class EarlyStopping(Monitor):
    """End the fit once a result has not improved for some evaluations in a row (Prechelt 1998).

    A run that it stopped stays stopped when resumed, unless `patience` is larger then. The task is left with
    its last weights; with `BestWeights` beside it, with the best.

    Args:
        monitor: the full name of a result: "val/loss" counts evaluations, "train/loss" epochs.
        mode: "min" or "max": which way it is better.
        patience: how many evaluations in a row may bring no improvement; the last of them stops.
        min_delta: how much better than the best so far counts as an improvement; more than this.

    Attributes:
        best: the best value so far; None before the first. NaN is never better.
        waited: evaluations since then.

    Raises:
        ValueError: `mode` is neither, `patience` is below 1 or `min_delta` negative.
    """

    def __init__(
        self, monitor: str = "val/loss", mode: str = "min", patience: int = 3, min_delta: float = 0.0
    ) -> None:
        super().__init__(monitor)
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 1:
            raise ValueError(
                f"EarlyStopping: patience is {patience!r}; it must be a whole number of at least 1"
            )
        if not min_delta >= 0:
            raise ValueError(f"EarlyStopping: min_delta is {min_delta!r}; it must not be negative")
        self.mode = check_mode("EarlyStopping", mode)
        self.patience = patience
        self.min_delta = min_delta
        self.reset()

    def reset(self) -> None:
        """A run begins anew."""
        super().reset()
        self.best: float | None = None
        self.waited = 0

    def on_fit_start(self, state: State) -> None:
        """A run that was stopped does not train one epoch more."""
        super().on_fit_start(state)
        self._decide(state)

    def watch(self, value: float, state: State) -> None:
        """Compare with the best so far."""
        if improves(value, self.best, self.mode, self.min_delta):
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        self._decide(state)

    def state_dict(self) -> dict[str, Any]:
        """The best value and how long it is ago."""
        return {**super().state_dict(), "best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        super().load_state_dict(state)
        self.best, self.waited = state["best"], int(state["waited"])

    def _decide(self, state: State) -> None:
        if self.waited >= self.patience:
            best = "any number" if self.best is None else f"{self.best:.6g}"
            state.request_stop(
                f"{self.monitor} has not improved on {best} for {self.waited} evaluations (EarlyStopping)"
            )
