"""Results under other names."""

from __future__ import annotations

from collections.abc import Mapping

from treadle.callbacks.history_insertion import RESERVED
from treadle.events import Callback
from treadle.state import State


class MetricRename(Callback):
    """Give results the names that somebody else expects: ``MetricRename({"val/accuracy": "acc"})``.

    The row in `run.history` and `state.results` have the value under the new name as well; the old name
    stays, so what watches it goes on working.

    Args:
        names: the new name for each old one, in full.

    Raises:
        TypeError: `names` is no mapping of strings.
        ValueError: two results would get one name, or a new name is "epoch" or "step". After the first
            evaluated epoch: a result is named that does not exist; the text lists those that do.
    """

    order = -90.0

    def __init__(self, names: Mapping[str, str]) -> None:
        if not isinstance(names, Mapping) or not all(isinstance(n, str) for n in (*names, *names.values())):
            raise TypeError(f"MetricRename: names is {names!r}; give a mapping of old names to new ones")
        new = list(names.values())
        if len(set(new)) < len(new) or not all(new) or set(new) & set(RESERVED):
            raise ValueError(
                f"MetricRename: the new names are {new}; they must be different and not {RESERVED}"
            )
        self.names = dict(names)

    @property
    def name(self) -> str:
        """The class and the names, so that several can be at work."""
        return f"MetricRename({self.names})"

    def on_epoch_results(self, state: State) -> None:
        """Add the values under their new names."""
        for old in self.names:
            mode = old.partition("/")[0]
            # Results of an evaluation that has not been done yet are not missing.
            waiting = mode in state.evaluations and not any(n.startswith(f"{mode}/") for n in state.row)
            if old not in state.row and not waiting:
                known = ", ".join(sorted(state.row)) or "none yet"
                raise ValueError(f"MetricRename: there is no result {old!r}. Known results: {known}")
        state.row.update({new: state.row[old] for old, new in self.names.items() if old in state.row})
