"""Axes for parallel coordinates: the settings in which runs differ, and the results they came to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from treadle.report.curves import rounded
from treadle.report.describing import clipped, flat, text_of
from treadle.report.sections import last_results
from treadle.runs import Run

FEWEST_RUNS = 3
_SETTINGS, _RESULTS = 8, 4
_NOT_SETTINGS = ("trainer.run_dir",)


def axes_of(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """An axis for each setting that differs, then for results; empty for fewer than three runs.

    Each is {"name", "values": a number for each run or None, "labels": None or a text for each position}:
    settings that are no numbers stand at positions 0, 1, 2, ...
    """
    if len(runs) < FEWEST_RUNS:
        return []
    configs = [flat(run.config or run.setup) for run in runs]
    names = dict.fromkeys(name for config in configs for name in config if name not in _NOT_SETTINGS)
    columns = {name: [config.get(name) for config in configs] for name in names}
    settings = {
        name: values for name, values in columns.items() if len({repr(value) for value in values}) > 1
    }
    results = [last_results(run) for run in runs]
    ranked = sorted(dict.fromkeys(name for found in results for name in found), key=_interest)
    shown = {name: [found.get(name) for found in results] for name in ranked[:_RESULTS]}
    return [_axis(name, values) for name, values in [*list(settings.items())[:_SETTINGS], *shown.items()]]


def _interest(name: str) -> tuple[bool, bool]:
    return not name.startswith(("test/", "val/")), name.startswith("learning_rate")


def _axis(name: str, values: Sequence[Any]) -> dict[str, Any]:
    name = clipped(name, 120)
    if all(
        value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)) for value in values
    ):
        return {"name": name, "values": [_number(value) for value in values], "labels": None}
    labels = sorted({clipped(text_of(value), 40) for value in values})
    return {
        "name": name,
        "values": [labels.index(clipped(text_of(value), 40)) for value in values],
        "labels": labels,
    }


def _number(value: float | None) -> float | None:
    try:
        return None if value is None else rounded(float(value))
    except OverflowError:
        return rounded(math.nan)
