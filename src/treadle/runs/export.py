"""The metrics of a run as a CSV file, in folders counted up: folder/name/version_0/metrics.csv."""

from __future__ import annotations

import csv
import math
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.runs import files, folders
from treadle.runs.chunks import Series, ordered
from treadle.runs.errors import RunError
from treadle.runs.reader import RunReader

FILE = "metrics.csv"
_ROWS = 10_000  # rows in memory at once


def export_csv(run: RunReader, folder: Path | str | None = None, name: str | None = None) -> Path:
    """Write the metrics to `folder/name/version_N/metrics.csv` with the next free N; returns the file.

    The columns are epoch (the first is 1), step, then the metrics by name; there is one row for each step
    at which anything was recorded, as in Lightning's CSVLogger. A metric that is recorded both per step and
    per epoch has two columns, name_step and name_epoch. A value is written so that it reads back as the
    same float; NaN and infinities are nan, inf, -inf; where there is no value the cell is empty. Of
    several values of one metric at one step the last is taken.

    Args:
        run: what to export; it may still be running.
        folder: where to; the run's own folder "csv" if left out.
        name: the folder between; the run's name if left out.

    Raises:
        RunError: no folder is given for a run in memory, or `name` has path separators.
    """
    if folder is None:
        if run.path is None:
            raise RunError("export_csv", "the run is in memory: give a folder")
        folder = run.path / "csv"
    chosen = re.sub(r"[/\\\0]", "_", run.name) if name is None else name
    place = folders.inside(Path(folder), chosen)
    place.mkdir(parents=True, exist_ok=True)
    temporary = place / f".version.{secrets.token_hex(6)}.tmp"
    temporary.mkdir()
    try:
        with open(temporary / FILE, "w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(_table(run))
            file.flush()
            os.fsync(file.fileno())
        files.sync_folder(temporary)
        number = _next_version(place)
        # Renaming decides between processes that want one number: it fails for all but the first.
        while not folders.rename_folder(temporary, place / f"version_{number}"):
            number += 1
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return place / f"version_{number}" / FILE


def read_csv(path: Path | str) -> dict[str, list[float]]:
    """The columns of a file that `export_csv` wrote (or of its folder); an empty cell is NaN.

    Raises:
        RunError: there is no such file, or it is no table of numbers.
    """
    path = Path(path)
    path = path / FILE if path.is_dir() else path
    try:
        with open(path, newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        columns: list[list[float]] = [[] for _ in header]
        for row in rows:
            for column, cell in zip(columns, row, strict=True):
                column.append(float(cell) if cell else math.nan)
    except OSError as error:
        raise RunError(path, f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RunError(path, f"is no table of metrics: {error}") from error
    columns[:2] = [[int(cell) for cell in column] for column in columns[:2]]
    return dict(zip(header, columns, strict=True))


def _table(run: RunReader) -> Iterator[list[Any]]:
    history, columns = run.history, _columns(run)
    steps = np.unique(np.concatenate([np.empty(0, np.int64), *(series.steps for series in columns.values())]))
    yield ["epoch", "step", *columns]
    ends = np.maximum.accumulate(np.array(history["step"], np.int64))
    last_epoch = int(history["epoch"][-1]) if history["epoch"] else 0
    epochs = np.array([*history["epoch"], last_epoch + 1], np.int64)
    for start in range(0, len(steps), _ROWS):
        block = steps[start : start + _ROWS]
        of_block = epochs[np.searchsorted(ends, block)]
        cells = [_cells(series, block) for series in columns.values()]
        yield from (list(row) for row in zip(of_block.tolist(), block.tolist(), *cells, strict=True))


def _columns(run: RunReader) -> dict[str, Series]:
    per_step = {name: run.series(name) for name in run.names()}
    points: dict[str, list[tuple[int, float]]] = {}
    for row in run.epoch_rows():
        for name, value in row.values.items():
            points.setdefault(name, []).append((row.step, value))
    per_epoch = {name: _series(found) for name, found in points.items()}
    both = per_step.keys() & per_epoch.keys()
    named = {f"{name}_step" if name in both else name: series for name, series in per_step.items()}
    named |= {f"{name}_epoch" if name in both else name: series for name, series in per_epoch.items()}
    return dict(sorted(named.items()))


def _series(points: list[tuple[int, float]]) -> Series:
    steps, values = zip(*points, strict=True)
    return ordered(Series(np.array(steps, np.int64), np.array(values, np.float64)))


def _cells(series: Series, steps: NDArray[np.int64]) -> list[str]:
    """The last value of a series at each of these steps, as text."""
    position = np.searchsorted(series.steps, steps, side="right") - 1
    there = position >= 0
    there[there] = series.steps[position[there]] == steps[there]
    return [
        repr(value) if present else ""
        for value, present in zip(_values(series, position, there), there.tolist(), strict=True)
    ]


def _values(series: Series, position: NDArray[np.int64], there: NDArray[np.bool_]) -> list[float]:
    values = np.zeros(len(position))
    values[there] = series.values[position[there]]
    return values.tolist()


def _next_version(place: Path) -> int:
    numbers = [
        int(match[1])
        for entry in place.iterdir()
        if (match := re.fullmatch(r"version_(\d{1,9})", entry.name))
    ]
    return max(numbers, default=-1) + 1
