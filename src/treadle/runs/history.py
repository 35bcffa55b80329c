"""The table of a run's epochs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from treadle.runs.store import EpochRow

_SHOWN = 20


class Duration(NamedTuple):
    """When an epoch began and ended (seconds since 1970), and the seconds it took without evaluation.

    They are the columns "time/start", "time/end" and "time/epoch"; a time that was not recorded is NaN.
    """

    epoch: int
    start: float
    end: float
    seconds: float


class History(Mapping[str, list[float]]):
    """One column for each metric, one row for each finished epoch.

    A mapping from name to list, so `pandas.DataFrame(run.history)` and `polars.DataFrame(run.history)` work.
    The first columns are "epoch" and "step" (whole numbers); a value that an epoch does not have is NaN.
    """

    def __init__(self, rows: Sequence[EpochRow]) -> None:
        names = dict.fromkeys(name for row in rows for name in row.values)
        self._columns: dict[str, list[float]] = {
            "epoch": [row.epoch for row in rows],
            "step": [row.step for row in rows],
            **{name: [row.values.get(name, math.nan) for row in rows] for name in names},
        }

    def __getitem__(self, name: str) -> list[float]:
        try:
            return self._columns[name]
        except KeyError:
            raise KeyError(f"there is no column {name!r}; there are {', '.join(self._columns)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        """The number of columns, as of any mapping; `len(history.rows())` is the number of epochs."""
        return len(self._columns)

    def rows(self) -> list[dict[str, float]]:
        """The table as a dictionary for each epoch."""
        return [
            dict(zip(self._columns, row, strict=True)) for row in zip(*self._columns.values(), strict=True)
        ]

    def last(self) -> dict[str, float]:
        """The row of the latest epoch; empty before the first is finished."""
        return next(reversed(self.rows()), {})

    def durations(self) -> list[Duration]:
        """How long each epoch took."""
        missing = [math.nan] * len(self._columns["epoch"])
        starts, ends, seconds = (
            self._columns.get(f"time/{name}", missing) for name in ("start", "end", "epoch")
        )
        return [
            Duration(int(row[0]), *row[1:])
            for row in zip(self._columns["epoch"], starts, ends, seconds, strict=True)
        ]

    def __repr__(self) -> str:
        names = [name for name in self._columns if name not in ("time/start", "time/end")]
        rows = self.rows()
        lines = [names, *([_format(row[name]) for name in names] for row in rows[-_SHOWN:])]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [
            "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
        ]
        if len(rows) > _SHOWN:
            text.insert(1, f"... {len(rows) - _SHOWN} earlier epochs")
        return "\n".join(text)


def _format(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.5g}"
