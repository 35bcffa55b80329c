"""The table of a run's epochs."""

from __future__ import annotations

import math
from collections.abc import Sequence
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


class History(dict[str, list[float]]):
    """One column for each metric, one row for each finished epoch.

    The first columns are "epoch" and "step" (whole numbers); a value that an epoch does not have is NaN.
    A dictionary of lists, because that is what `pandas.DataFrame(run.history)` and
    `polars.DataFrame(run.history)` take. It is a copy: changing it changes nothing in the run.
    """

    def __init__(self, rows: Sequence[EpochRow]) -> None:
        super().__init__(epoch=[row.epoch for row in rows], step=[row.step for row in rows])
        for name in dict.fromkeys(name for row in rows for name in row.values):
            self[name] = [row.values.get(name, math.nan) for row in rows]

    def __missing__(self, name: str) -> list[float]:
        raise KeyError(f"there is no column {name!r}; there are {', '.join(self)}")

    def rows(self) -> list[dict[str, float]]:
        """The table as a dictionary for each epoch."""
        return [dict(zip(self, row, strict=True)) for row in zip(*self.values(), strict=True)]

    def last(self) -> dict[str, float]:
        """The row of the latest epoch; empty before the first is finished."""
        return next(reversed(self.rows()), {})

    def durations(self) -> list[Duration]:
        """How long each epoch took."""
        missing = [math.nan] * len(self["epoch"])
        starts, ends, seconds = (self.get(f"time/{name}", missing) for name in ("start", "end", "epoch"))
        return [
            Duration(int(row[0]), *row[1:]) for row in zip(self["epoch"], starts, ends, seconds, strict=True)
        ]

    def __repr__(self) -> str:
        names = [name for name in self if name not in ("time/start", "time/end")]
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
