"""What a loop logs, step by step and in the mean over an epoch."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from functools import reduce
from itertools import chain, repeat
from math import nan
from operator import add, itemgetter, mul
from typing import Any

import torch
from torch import Tensor

from treadle.metrics import Metric
from treadle.pending import Column, Pending
from treadle.scalars import read_scalars

Point = tuple[str, int, float]
"""A logged value: its full name ("train/loss"), the number of the optimizer step, the value."""

Curve = tuple[list[int], list[float]]
"""Steps, and the value at each."""

Curves = dict[str, Curve]
"""Curves by full name."""


class MetricLog:
    """The values that one loop logs, with their averages over an epoch, weighted by items.

    `State.log` adds to what is `pending`, `record` takes a point that belongs in no average. Both only
    remember; `flush` reads all that is pending in one copy. Values of one name within one step
    (micro-batches, ranks) become one point, their item-weighted mean. Averages over the epoch are
    kept as Python floats, added in step order, so they do not depend on when somebody flushed.

    Args:
        prefix: the mode, which stands in front of names without a slash.
        pending: where values wait; see `Pending`.
    """

    def __init__(self, prefix: str, pending: Pending | None = None) -> None:
        self._prefix = prefix
        self.pending = pending or Pending()
        self._plain: list[Point] = []
        self._sums: dict[str, list[float]] = {}
        self._names: dict[str, str] = {}  # full ones, by the names that values were logged under
        self.record = self._plain.append

    def drop_after(self, step: int) -> None:
        """Forget the pending values of later steps: one that was cut off, or is to be tried again."""
        self.pending.drop_after(step)
        while self._plain and self._plain[-1][1] > step:
            self._plain.pop()

    def flush(self) -> Curves:
        """Read what is pending; returns a value for each name and step."""
        return self._merge(*self._collect())

    def salvage(self) -> Curves:
        """`flush` for a run that fails: of this process alone, where others may no longer answer."""
        return self._merge(*self._read())

    def _collect(self) -> tuple[dict[str, Column], list[Point]]:
        """What is pending; where several processes log, what is pending in any of them."""
        return self._read()

    def _read(self) -> tuple[dict[str, Column], list[Point]]:
        plain = self._plain.copy()
        self._plain.clear()
        return self.pending.read(), plain

    def _merge(self, columns: dict[str, Column], plain: list[Point]) -> Curves:
        curves: Curves = {}
        for name, (steps, values, weights) in columns.items():
            if not steps:
                continue
            full = self._names.get(name)
            if full is None:
                full = self._names[name] = name if "/" in name else f"{self._prefix}/{name}"
            if len(set(steps)) < len(steps):
                steps, values, weights, totals = _by_step(steps, values, weights)
            else:
                totals = list(map(mul, values, weights))
            if 0.0 in weights:  # a step without items (all padding, an empty share of a rank) has no mean
                totals = [total if weight else 0.0 for total, weight in zip(totals, weights, strict=True)]
                values = [value if weight else nan for value, weight in zip(values, weights, strict=True)]
            sums = self._sums.setdefault(full, [0.0, 0.0])
            # Added one after another, from what is there: `sum` over floats adds more exactly since 3.12.
            sums[0] = reduce(add, totals, sums[0])
            sums[1] = reduce(add, weights, sums[1])
            curves[full] = _in_order(curves[full], (steps, values)) if full in curves else (steps, values)
        recorded: Curves = {}
        for name, step, value in plain:
            steps, values = recorded.setdefault(name, ([], []))
            steps.append(step)
            values.append(value)
        for name, curve in recorded.items():
            curves[name] = _in_order(curves[name], curve) if name in curves else curve
        return curves

    def means(self) -> dict[str, float]:
        """The item-weighted mean of every name since the last `reset`; what is pending is not in it."""
        return {
            name: total / weight if weight else float("nan") for name, (total, weight) in self._sums.items()
        }

    def reset(self) -> None:
        """Begin a new epoch."""
        self.pending.clear()
        self._plain.clear()
        self._sums.clear()

    def state_dict(self) -> dict[str, Any]:
        """The sums so far; flush first."""
        return {name: list(sums) for name, sums in self._sums.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.pending.clear()
        self._plain.clear()
        self._sums = {name: list(sums) for name, sums in state.items()}


def points_of(curves: Curves) -> list[Point]:
    """Every value as a point of its own, by step."""
    columns = [list(zip(repeat(name), steps, values)) for name, (steps, values) in curves.items()]
    ticks = [steps for steps, _ in curves.values()]
    if all(one == ticks[0] for one in ticks):
        return list(chain.from_iterable(zip(*columns, strict=True)))  # as sorting would have it
    return sorted(chain.from_iterable(columns), key=itemgetter(1))


def _in_order(one: Curve, other: Curve) -> Curve:
    """One curve of what was logged as "loss" and as "train/loss", or recorded besides, by step."""
    points = sorted(zip(one[0] + other[0], one[1] + other[1], strict=True), key=itemgetter(0))
    return [step for step, _ in points], [value for _, value in points]


def _by_step(
    steps: list[int], values: list[float], weights: list[float]
) -> tuple[list[int], list[float], list[float], list[float]]:
    """One value for each step: steps, means, weights, and the sums that were divided."""
    # By step: the sum, its weight, the first value that has items, and its own weight.
    merged: dict[int, list[float]] = {}
    for step, value, weight in zip(steps, values, weights, strict=True):
        # A micro-batch without items has no mean to count.
        weighted = value * weight if weight else 0.0
        known = merged.get(step)
        if known is None:
            merged[step] = [weighted, weight, value, weight]
        else:
            known[0] += weighted
            known[1] += weight
            if weight and not known[3]:
                known[2:] = value, weight
    means = [
        value if weight == own else weighted / weight  # a value that stands alone is kept to the last bit
        for weighted, weight, value, own in merged.values()
    ]
    return list(merged), means, [one[1] for one in merged.values()], [one[0] for one in merged.values()]


def counters(templates: Mapping[str, Metric], device: torch.device) -> dict[str, Metric]:
    """Copies of a task's metrics that count from zero, on the device."""
    metrics = {name: deepcopy(metric) for name, metric in templates.items()}
    for metric in metrics.values():
        metric.reset()
        metric.to(device)
    return metrics


def read_counters(metrics: Mapping[str, Metric], mode: str) -> dict[str, float]:
    """The value of every metric by full name, read from the device in one copy."""
    values: dict[str, Tensor | float] = {}
    for name, metric in metrics.items():
        value = metric.compute()
        parts = (
            {f"{name}_{part}": v for part, v in value.items()} if isinstance(value, dict) else {name: value}
        )
        values.update((f"{mode}/{part}", v) for part, v in parts.items())
    return dict(zip(values, read_scalars(values.values()), strict=True))
