"""The learning rate of every step."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from treadle.callbacks.points import record
from treadle.events import Callback
from treadle.scalars import read_scalars
from treadle.state import State


class LearningRateMonitor(Callback):
    """Record the learning rate that each step is taken with, as the series "learning_rate".

    With several optimizers the series are "learning_rate/<optimizer>", and with several parameter groups
    another "/<number>" follows. Values are handed over at log boundaries; a rate that is a tensor on the
    device is copied there and read with the others.
    """

    order = -100.0

    def __init__(self) -> None:
        self._pending: list[tuple[str, int, Tensor | float]] = []

    def state_dict(self) -> dict[str, Any]:
        """The rates that are not recorded yet."""
        return {"pending": [list(point) for point in self._pending]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self._pending = [(str(name), int(step), rate) for name, step, rate in state["pending"]]

    def on_fit_start(self, state: State) -> None:
        """A new run has nothing pending."""
        if state.progress.step == 0:
            self._pending.clear()

    def on_step_start(self, state: State) -> None:
        """Remember the rates."""
        several = len(state.optimizers) > 1
        for key, optimizer in state.optimizers.items():
            groups = optimizer.param_groups
            for number, group in enumerate(groups):
                name = "learning_rate" + (f"/{key}" if several else "")
                name += f"/{number}" if len(groups) > 1 else ""
                rate = group["lr"]
                kept = rate.detach().clone() if isinstance(rate, Tensor) else float(rate)
                self._pending.append((name, state.current_step, kept))

    def on_log(self, state: State) -> None:
        """Hand the rates over with the values that have just come."""
        record(state, self._read())

    def on_epoch_end(self, state: State) -> None:
        """Hand over what is left, where the task logs nothing."""
        record(state, self._read())

    def on_fit_end(self, state: State) -> None:
        """Hand over what is left."""
        record(state, self._read())

    def _read(self) -> list[tuple[str, int, float]]:
        rates = read_scalars([rate for _, _, rate in self._pending])
        points = [(name, step, rate) for (name, step, _), rate in zip(self._pending, rates, strict=True)]
        self._pending.clear()
        return points
