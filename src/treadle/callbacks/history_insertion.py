"""Values of one's own in the epoch's row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from treadle.events import Callback
from treadle.scalars import read_scalars
from treadle.state import State

RESERVED = ("epoch", "step")


class HistoryInsertion(Callback):
    """Add values to the row of each epoch in `run.history`, and to `state.results`.

    They are there before schedules tick, so a plateau can be found in one. Give them names without the
    prefix of an evaluation ("own/score" rather than "val/score"), since those are watched earlier.

    Args:
        function: of the state after an epoch is trained and evaluated; gives numbers, or tensors of one
            element, by full name.

    Raises:
        TypeError: `function` cannot be called, or does not give a mapping.
        ValueError: a name is "epoch" or "step", which every row has.
    """

    order = -100.0

    def __init__(self, function: Callable[[State], Mapping[str, Tensor | float]]) -> None:
        if not callable(function):
            raise TypeError(f"HistoryInsertion: function is {function!r}; give a function of the state")
        self._function = function

    def on_epoch_results(self, state: State) -> None:
        """Ask the function and add what it says."""
        values: Any = self._function(state)
        if not isinstance(values, Mapping):
            raise TypeError(
                f"HistoryInsertion: the function gave {type(values).__name__}; it must give values by name"
            )
        taken = [name for name in values if name in RESERVED or not isinstance(name, str)]
        if taken:
            raise ValueError(f"HistoryInsertion: {taken!r} cannot be the name of a value")
        state.row.update(zip(values, read_scalars(values.values()), strict=True))
