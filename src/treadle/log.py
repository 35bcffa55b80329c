"""What a loop logs: values stay on the device until somebody has to read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from treadle.metrics import Metric

Point = tuple[str, int, float]
"""A logged value: its full name ("train/loss"), the number of the optimizer step, the value."""

Entry = tuple[str, int, float, float]
"""What `MetricLog.add` was given, read from the device: name, step, value, items."""


def read_scalars(values: Iterable[Tensor | float]) -> list[float]:
    """Numbers from one-element tensors, wherever they are, in one copy for each device and type.

    This is the one place where logging waits for the device.
    """
    numbers: list[Any] = list(values)
    groups: dict[tuple[torch.dtype, torch.device], list[int]] = {}
    for position, value in enumerate(numbers):
        if isinstance(value, Tensor):
            groups.setdefault((value.dtype, value.device), []).append(position)
        else:
            numbers[position] = float(value)
    for positions in groups.values():
        given = [numbers[position] for position in positions]
        stacked = torch.stack([value.reshape(()) if value.ndim else value for value in given])
        read = stacked.double().tolist()  # waits for the device
        for position, number in zip(positions, read, strict=True):
            numbers[position] = number
    return numbers


class MetricLog:
    """The values that one loop logs, with their averages over an epoch, weighted by items.

    `add` takes (name, step, value, items), `record` takes a point that belongs in no average. Both only
    remember; `flush` reads all that is pending in one copy. Values of one name within one
    step (micro-batches, ranks) become one point, their item-weighted mean. Averages over the epoch are
    kept as Python floats, added in step order, so they do not depend on when somebody flushed.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._pending: list[tuple[str, int, Tensor | float, Tensor | float]] = []
        self._plain: list[Point] = []
        self._sums: dict[str, list[float]] = {}
        self._names: dict[str, str] = {}  # full ones, by the names that values were logged under
        self.record = self._plain.append
        self.add = self._pending.append  # the hot path: one list append, no method of ours in between

    def drop_after(self, step: int) -> None:
        """Forget the pending values of later steps: one that was cut off, or is to be tried again."""
        for entries in (self._pending, self._plain):
            while entries and entries[-1][1] > step:
                entries.pop()

    def flush(self) -> list[Point]:
        """Read what is pending; returns a point for each name and step, in the order they came."""
        return self._merge(*self._collect())

    def salvage(self) -> list[Point]:
        """`flush` for a run that fails: of this process alone, where others may no longer answer."""
        return self._merge(*self._read())

    def _collect(self) -> tuple[list[Entry], list[Point]]:
        """What is pending; where several processes log, what is pending in any of them."""
        return self._read()

    def _read(self) -> tuple[list[Entry], list[Point]]:
        plain = self._plain.copy()
        self._plain.clear()
        if not self._pending:
            return [], plain
        pending = self._pending.copy()
        self._pending.clear()
        names, steps, given, items = zip(*pending, strict=True)
        return list(zip(names, steps, read_scalars(given), read_scalars(items), strict=True)), plain

    def _merge(self, entries: list[Entry], plain: list[Point]) -> list[Point]:
        # By name and step: the sum, its weight, the first value that has items, and its own weight.
        merged: dict[tuple[str, int], list[float]] = {}
        for name, step, value, weight in entries:
            # A micro-batch without items (all padding, an empty share of a rank) has no mean to count.
            weighted = value * weight if weight else 0.0
            known = merged.get((name, step))
            if known is None:
                merged[name, step] = [weighted, weight, value if weight else float("nan"), weight]
            else:
                known[0] += weighted
                known[1] += weight
                if weight and not known[3]:
                    known[2:] = value, weight
        points: list[Point] = []
        for (name, step), (weighted, weight, value, own) in merged.items():
            if weight != own:  # a value that stands alone is kept to the last bit
                value = weighted / weight if weight else float("nan")
            full = self._names.get(name)
            if full is None:
                full = self._names[name] = name if "/" in name else f"{self._prefix}/{name}"
            sums = self._sums.get(full)
            if sums is None:
                sums = self._sums[full] = [0.0, 0.0]
            sums[0] += weighted
            sums[1] += weight
            points.append((full, step, value))
        return points + plain

    def means(self) -> dict[str, float]:
        """The item-weighted mean of every name since the last `reset`; what is pending is not in it."""
        return {
            name: total / weight if weight else float("nan") for name, (total, weight) in self._sums.items()
        }

    def reset(self) -> None:
        """Begin a new epoch."""
        self._pending.clear()
        self._plain.clear()
        self._sums.clear()

    def state_dict(self) -> dict[str, Any]:
        """The sums so far; flush first."""
        return {name: list(sums) for name, sums in self._sums.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self._pending.clear()
        self._plain.clear()
        self._sums = {name: list(sums) for name, sums in state.items()}


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
