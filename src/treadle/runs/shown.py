"""How a run shows itself: in a notebook as HTML, and as a figure of matplotlib. Needs neither to be here."""

from __future__ import annotations

import html
import importlib
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from treadle.runs.reader import RunReader

COLOURS = ("#2a6fdb", "#d9660a", "#1f8a4c", "#7b4fc9", "#c0308a", "#0f8792")
_ROWS, _CHARTS, _POINTS = 10, 6, 200
_WIDTH, _HEIGHT = 320, 150

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]


def html_of(run: RunReader) -> str:
    """A headline, the curves, and the last rows of the history; all names escaped, no script."""
    reason = f" ({run.reason})" if run.reason else ""
    where = "in memory" if run.path is None else str(run.path)
    stands = _safe(f"{run.id}: {run.status}{reason}, step {run.step}, {where}")
    head = f"<b>{_safe(run.name)}</b> {stands}"
    return f"<div><p>{head}</p>{charts_of(run)}{_table(run)}</div>"


def charts_of(run: RunReader) -> str:
    """The curves as SVG, "train/loss" with "val/loss"."""
    return "".join(_chart(title, curves) for title, curves in list(_grouped(run, None).items())[:_CHARTS])


def figure_of(run: RunReader, names: Iterable[str] | None = None, logarithmic: bool = False) -> Any:
    """A matplotlib `Figure`, made without its global state; see `RunReader.plot`."""
    try:
        module = importlib.import_module("matplotlib.figure")
    except ImportError as error:
        message = f"run.plot() needs matplotlib: pip install 'treadle[plots]' ({error})"
        raise ImportError(message, name="matplotlib") from error
    groups = _grouped(run, None if names is None else list(names))
    columns = min(2, max(1, len(groups)))
    rows = max(1, math.ceil(len(groups) / columns))
    figure = module.Figure(figsize=(5.5 * columns, 3.2 * rows), layout="constrained")
    figure.suptitle(run.name)
    for place, (title, curves) in enumerate(groups.items()):
        axes = figure.add_subplot(rows, columns, place + 1)
        for name, (steps, values) in curves.items():
            axes.plot(steps, values, label=name, marker="." if len(steps) < 40 else None)
        axes.set(title=title, xlabel="step")
        if logarithmic:
            axes.set_yscale("log")
        axes.legend()
    return figure


def _grouped(run: RunReader, names: list[str] | None) -> dict[str, dict[str, Curve]]:
    curves = _curves(run)
    if names is not None:
        unknown = [name for name in names if name not in curves]
        if unknown:
            raise KeyError(f"there is no curve {unknown[0]!r}; there are {', '.join(curves) or 'none'}")
    groups: dict[str, dict[str, Curve]] = {}
    for name in [name for name in curves if not name.startswith("time/")] if names is None else names:
        groups.setdefault(name.rpartition("/")[2], {})[name] = curves[name]
    return groups


def _curves(run: RunReader) -> dict[str, Curve]:
    """By epoch where there is such a value, else by step."""
    found: dict[str, Curve] = {}
    for name in run.names():
        buckets = run.downsample(name, _POINTS)
        found[name] = (buckets.first.astype(float), buckets.mean)
    points: dict[str, tuple[list[float], list[float]]] = {}
    for row in run.epoch_rows():
        for name, value in row.values.items():
            steps, values = points.setdefault(name, ([], []))
            steps.append(row.step)
            values.append(value)
    found |= {
        name: (np.array(steps), np.array(values))
        for name, (steps, values) in points.items()
        if len(steps) > 1
    }
    return found


def _chart(title: str, curves: Mapping[str, Curve]) -> str:
    steps = np.concatenate([steps for steps, _ in curves.values()])
    values = np.concatenate([values for _, values in curves.values()])
    known = values[np.isfinite(values)]
    if not len(known):
        return ""
    low, high, first, last = float(known.min()), float(known.max()), float(steps.min()), float(steps.max())
    lines, names = [], []
    for number, (name, (at, found)) in enumerate(curves.items()):
        colour, fine = COLOURS[number % len(COLOURS)], np.isfinite(found)
        x = (at[fine] - first) / ((last - first) or 1) * (_WIDTH - 20) + 10
        y = _HEIGHT - 30 - _share(found[fine], low, high) * (_HEIGHT - 50)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True))
        lines.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        latest = f"{found[fine][-1]:.4g}" if fine.any() else "-"
        names.append(f'<tspan fill="{colour}">{_safe(name[-24:])} {latest}</tspan> ')
    text = (
        f'<text x="10" y="14" font-size="11">{"".join(names)}</text>'
        f'<text x="10" y="{_HEIGHT - 6}" font-size="10" fill="currentColor">step {first:g} to {last:g}, '
        f"{low:.4g} to {high:.4g}</text>"
    )
    size = f'width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"'
    return f'<svg {size} aria-label="{_safe(title)}">{text}{"".join(lines)}</svg>'


def _share(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    return (values / 2 - low / 2) / (high / 2 - low / 2) if high > low else np.full(len(values), 0.5)


def _table(run: RunReader) -> str:
    history = run.history
    names = [name for name in history if not name.startswith("time/")]
    rows = history.rows()[-_ROWS:]
    if not rows:
        return ""
    head = "".join(f"<th>{_safe(name)}</th>" for name in names)
    body = "".join(
        "<tr>"
        + "".join(f"<td>{'' if math.isnan(row[name]) else f'{row[name]:.5g}'}</td>" for name in names)
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _safe(text: str) -> str:
    return html.escape(str(text), quote=True)
