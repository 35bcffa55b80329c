"""The curves of a run in few numbers: what was recorded per step and per epoch, ready for JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.report.timing import running_time
from treadle.runs import Buckets, Run
from treadle.runs.chunks import Series as Points
from treadle.runs.chunks import merge, of_points, ordered

NUMBERS = 36_000
"""About how many numbers all curves of a page together may have; what keeps a page small."""

FEWEST, MOST = 40, 500
"""Buckets of one curve, however many curves there are."""

HUGE = 1e30
"""What is larger is drawn here: beyond it charts have no ticks, and further on the arithmetic overflows."""

_CLOCK = 300  # points of the clock that are enough to draw by time


def buckets_for(curves: int) -> int:
    """How many buckets each of so many curves gets."""
    return max(FEWEST, min(MOST, NUMBERS // (4 * max(curves, 1))))


def curves_of(run: Run, buckets: int) -> list[dict[str, Any]]:
    """All curves of a run: those by step, then those by epoch.

    Each is a dictionary with `name`; `per` ("step" or "epoch"); `steps`, see `packed`; `mean`; where points
    were merged also `minimum` and `maximum`; `points`, how many were recorded; and where some of them are
    NaN or infinite, `gaps` (how many) and `gap` (the step of the first). A missing value is None.
    """
    by_step = [_curve(name, "step", run.downsample(name, 2 * buckets), buckets) for name in run.names()]
    by_epoch = [_curve(name, "epoch", of_points(points), buckets) for name, points in _epochs(run)]
    return by_step + by_epoch


def clock_of(run: Run) -> dict[str, list[float]]:
    """`steps` and the `seconds` of running until each of them."""
    steps, seconds = running_time(run)
    keep = np.unique(np.linspace(0, max(len(steps) - 1, 0), min(len(steps), _CLOCK)).astype(np.int64))
    return {"steps": steps[keep].tolist(), "seconds": [round(value, 2) for value in seconds[keep].tolist()]}


def _epochs(run: Run) -> Iterable[tuple[str, Points]]:
    points: dict[str, tuple[list[int], list[float]]] = {}
    for row in run.epoch_rows():  # not the history, whose NaN may mean that there is no value
        for name, value in row.values.items():
            steps, values = points.setdefault(name, ([], []))
            steps.append(row.step)
            values.append(value)
    for name, (steps, values) in points.items():
        if name not in ("time/start", "time/end"):
            yield name, ordered(Points(np.array(steps, np.int64), np.array(values, np.float64)))


def _curve(name: str, per: str, found: Buckets, buckets: int) -> dict[str, Any]:
    points, finite = int(found.count.sum()), int(found.finite.sum())
    curve: dict[str, Any] = {"name": name, "per": per, "points": points}
    if finite < points:
        curve |= {"gaps": points - finite, "gap": int(found.first[found.finite < found.count][0])}
    if points > len(found.count) or points > 2 * buckets:
        found = merge(found, buckets)
        curve |= {"minimum": numbers(found.minimum), "maximum": numbers(found.maximum)}
    middle = found.first + (found.last - found.first) // 2
    return curve | {"steps": packed(middle), "mean": numbers(found.mean)}


def packed(steps: NDArray[np.int64]) -> list[int] | dict[str, int]:
    """Steps as a list, or evenly spaced ones as {"from", "by", "count"}."""
    differences = np.diff(steps)
    if len(steps) > 2 and (differences == differences[0]).all():
        return {"from": int(steps[0]), "by": int(differences[0]), "count": len(steps)}
    found: list[int] = steps.tolist()
    return found


def numbers(values: NDArray[np.float64]) -> list[float | None]:
    """Six significant digits each; None for what is not finite."""
    return [rounded(value) for value in values.tolist()]


def rounded(value: float) -> float | None:
    """Six significant digits, or None where JSON has no word for it."""
    return float(f"{max(-HUGE, min(HUGE, value)):.6g}") if math.isfinite(value) else None
