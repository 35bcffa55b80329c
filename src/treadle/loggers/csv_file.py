"""Values as a table that any program reads."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from treadle.log import Point
from treadle.loggers.base import Begin, Logger
from treadle.loggers.text_files import append, place_of, replace, whole_lines


class CSVLogger(Logger):
    """Write values as CSV: a column "step", one for each name, and a row for what comes together.

    The file is `metrics.csv` in the run's folder, or NAME-ID.csv in `folder`. A new name adds a column, for
    which the file is written anew. Values read back as the same floats; NaN and infinities are nan, inf and
    -inf; where there is no value the cell is empty. Texts, pictures and histograms are left out.

    Args:
        folder: where to, instead of the run's folder.
        options: see `Logger`.
    """

    def __init__(self, folder: Path | str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.folder = None if folder is None else Path(folder)
        self._path = Path()
        self._columns: list[str] = []

    def check(self, begin: Begin) -> None:
        """The run must be somewhere."""
        self._path = place_of(begin, self.folder, "metrics.csv")

    def open(self, begin: Begin) -> None:
        """Keep the rows before `begin.step`; its own are written anew from the record."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._columns, rows = self._read()
        self._rewrite(self._columns, [row for row in rows if int(row[0]) < begin.step])
        self.write_points(begin.points)

    def write_points(self, points: Sequence[Point]) -> None:
        """A row for each step."""
        rows: dict[int, dict[str, float]] = {}
        for name, step, value in points:
            rows.setdefault(step, {})[name] = value
        new = [name for name in dict.fromkeys(name for name, _, _ in points) if name not in self._columns]
        if new:
            self._rewrite([*self._columns, *new], self._read()[1])
        names = self._columns[1:]
        append(
            self._path,
            _csv(
                [step, *(repr(float(row[name])) if name in row else "" for name in names)]
                for step, row in rows.items()
            ),
        )

    def _read(self) -> tuple[list[str], list[list[str]]]:
        columns, *rows = list(csv.reader(io.StringIO(whole_lines(self._path), newline=""))) or [["step"]]
        return columns, rows

    def _rewrite(self, columns: list[str], rows: Iterable[Sequence[str]]) -> None:
        padded = ([*row, *[""] * (len(columns) - len(row))] for row in rows)
        replace(self._path, _csv([columns, *padded]))
        self._columns = columns


def _csv(rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
