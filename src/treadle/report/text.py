"""The curves of a run as plain text, for a terminal of 80 columns or a log file."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from treadle.report.curves import curves_of
from treadle.report.grouping import SECTIONS, charts_of
from treadle.runs import Run

SIGNS = "*ox+#%@="
"""What the curves of one chart are drawn with."""

LEAST_WIDTH = 40
_LABEL = 10  # columns left of a chart
_SHOWN = SECTIONS[:2]

Points = tuple[NDArray[np.float64], NDArray[np.float64]]


def draw(run: Run, width: int = 80, height: int = 10, names: Iterable[str] | None = None) -> str:
    """A headline and a chart for each metric.

    Args:
        run: may still be running.
        width, height: columns of the text, lines of one chart.
        names: which curves; those of metrics and learning rates if left out.

    Raises:
        KeyError: the run has no curve of a given name.
        ValueError: there is no room.
    """
    if width < LEAST_WIDTH or height < 3:
        raise ValueError(
            f"draw: {width} columns and {height} lines are too few; {LEAST_WIDTH} and 3 are enough"
        )
    curves: dict[str, Points] = {}
    for curve in curves_of(run, width):
        name, steps = curve["name"], curve["steps"]
        if isinstance(steps, dict):
            steps = [steps["from"] + steps["by"] * place for place in range(steps["count"])]
        # What is recorded by step comes first, and is finer than the same by epoch.
        curves.setdefault(name, (np.array(steps, float), np.array(curve["mean"], float)))
    wanted = list(curves) if names is None else list(names)
    unknown = [name for name in wanted if name not in curves]
    if unknown:
        raise KeyError(f"there is no curve {unknown[0]!r}; there are {', '.join(curves) or 'none'}")
    charts = charts_of(wanted)
    if names is None:
        charts = [chart for chart in charts if chart.section in _SHOWN]
    blocks = [_chart({name: curves[name] for name in chart.names}, width, height) for chart in charts]
    return "\n\n".join([_headline(run, width), *(blocks or ["nothing is recorded yet"])]) + "\n"


def _headline(run: Run, width: int) -> str:
    reason = f" ({run.reason})" if run.reason else ""
    text = f"{run.name} {run.id}  {run.status}{reason}  epoch {run.epoch}  step {last_step(run)}"
    return printable(text)[:width]


def last_step(run: Run) -> int:
    """The newest step of which anything is known: while a run goes on, its own count is behind."""
    steps = run.clock.steps
    return max(run.step, int(steps[-1]) if len(steps) else 0)


def printable(text: str) -> str:
    """Without control characters, which could do anything to a terminal."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def _chart(curves: dict[str, Points], width: int, height: int) -> str:
    columns = width - _LABEL - 2
    steps = np.concatenate([steps for steps, _ in curves.values()])
    values = np.concatenate([values for _, values in curves.values()])
    finite = values[np.isfinite(values)]
    title = _legend(curves, width)
    if not len(finite):
        return f"{title}\n{'':{_LABEL}} | (no finite values)"
    low, high, first, last = finite.min(), finite.max(), steps.min(), steps.max()
    grid = [[" "] * columns for _ in range(height)]
    for sign, (at, found) in zip(_signs(len(curves)), curves.values(), strict=True):
        # A line between the points; a value that is not finite leaves a gap.
        between = np.interp(np.linspace(first, last, columns), at, found, left=np.nan, right=np.nan)
        at, found = np.append(at, np.linspace(first, last, columns)), np.append(found, between)
        known = np.isfinite(found)
        across, up = _places(at[known], first, last, columns), _places(found[known], low, high, height)
        for x, y in zip(across, up, strict=True):
            grid[height - 1 - y][x] = sign
    labels = {
        0: high,
        height // 2: low + (high - low) * (height - 1 - height // 2) / (height - 1),
        height - 1: low,
    }
    lines = [
        f"{number(labels[row]) if row in labels else '':>{_LABEL}} |{''.join(cells)}".rstrip()
        for row, cells in enumerate(grid)
    ]
    ends = f"step {int(last)}"[-columns:]
    begins = str(int(first))
    gap = columns - len(begins) - len(ends)
    below = f"{'':{_LABEL}}  {begins if gap > 0 else '':<{max(columns - len(ends), 0)}}{ends}"
    return "\n".join([title, *lines, below])


def _legend(curves: dict[str, Points], width: int) -> str:
    parts = [
        f"{sign} {printable(name)} {number(_last(values))}"
        for sign, (name, (_, values)) in zip(_signs(len(curves)), curves.items(), strict=True)
    ]
    lines, line = [], ""
    for part in parts:
        if line and len(line) + 3 + len(part) > width:
            lines.append(line)
            line = ""
        line = f"{line}   {part}" if line else part[:width]
    return "\n".join([*lines, line])


def _last(values: NDArray[np.float64]) -> float:
    return next((value for value in values[::-1].tolist() if math.isfinite(value)), math.nan)


def _signs(count: int) -> list[str]:
    return [SIGNS[place % len(SIGNS)] for place in range(count)]


def _places(values: NDArray[np.float64], low: float, high: float, count: int) -> list[int]:
    if high <= low:
        return [count // 2] * len(values)
    places: list[int] = (
        np.rint((values / 2 - low / 2) / (high / 2 - low / 2) * (count - 1)).astype(int).tolist()
    )
    return places


def number(value: float) -> str:
    """At most ten characters."""
    return f"{value:.4g}"
