"""What a loop logs: values stay on the device until somebody has to read them."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Mapping
from copy import deepcopy
from functools import reduce
from itertools import chain, repeat
from math import nan
from operator import add, attrgetter, itemgetter, mul
from typing import Any

import torch
from torch import Tensor

from treadle.metrics import Metric
from treadle.scalars import read_scalars

Point = tuple[str, int, float]
"""A logged value: its full name ("train/loss"), the number of the optimizer step, the value."""

Logged = tuple[int, Tensor | float, Tensor | float, int | None]
"""What was logged under a name: step, value, items; and the version of a tensor that is not ours alone."""

Column = tuple[list[int], list[float], list[float]]
"""All that was logged under a name, read from the device: steps, values and items, in the order they came."""


_STEP = itemgetter(1)
_VERSION = attrgetter("_version")


class MetricLog:
    """The values that one loop logs, with their averages over an epoch, weighted by items.

    `State.log` puts (step, value, items, version) into `columns`, `record` takes a point that belongs in no
    average. Both only remember; `flush` reads all that is pending in one copy. Values of one name within one
    step (micro-batches, ranks) become one point, their item-weighted mean. Averages over the epoch are
    kept as Python floats, added in step order, so they do not depend on when somebody flushed.

    A tensor may be changed in place after it was logged (`loss += penalty`, a running average, a parameter).
    Copying each would cost more than all the rest, so a name earns trust: its first value is copied, and
    where that tensor is still as it was when the name is logged again, with another tensor, later ones are
    kept as they are. What changes all the same is seen by its version counter: that value is lost, a warning
    says so, and from then on values of this name are copied.

    Attributes:
        columns: what is pending, by name.
        trusted: the names whose tensors are kept without a copy.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.columns: defaultdict[str, list[Logged]] = defaultdict(list)
        self.trusted: set[str] = set()
        self._watched: dict[str, tuple[Tensor, int]] = {}
        self._copied: set[str] = set()
        self._plain: list[Point] = []
        self._sums: dict[str, list[float]] = {}
        self._names: dict[str, str] = {}  # full ones, by the names that values were logged under
        self.record = self._plain.append

    def add_copy(self, name: str, step: int, value: Tensor, items: Tensor | float) -> None:
        """Log a tensor that may be changed in place later; see the class."""
        plain = type(value) is Tensor and not value.is_inference()  # others have no storage, or no version
        if plain and name not in self._copied:
            watched = self._watched.get(name)
            if watched is None:
                self._watched[name] = value, value._version
            elif watched[0]._version == watched[1] and not _share_memory(watched[0], value):
                self.trusted.add(name)
                self.columns[name].append((step, value, items, value._version))
                return
            else:
                self._copied.add(name)
        self.columns[name].append((step, value.clone(), items, None))

    def drop_after(self, step: int) -> None:
        """Forget the pending values of later steps: one that was cut off, or is to be tried again."""
        for entries in self.columns.values():
            while entries and entries[-1][0] > step:
                entries.pop()
        while self._plain and self._plain[-1][1] > step:
            self._plain.pop()

    def flush(self) -> list[Point]:
        """Read what is pending; returns a point for each name and step, by step."""
        return self._merge(*self._collect())

    def salvage(self) -> list[Point]:
        """`flush` for a run that fails: of this process alone, where others may no longer answer."""
        return self._merge(*self._read())

    def _collect(self) -> tuple[dict[str, Column], list[Point]]:
        """What is pending; where several processes log, what is pending in any of them."""
        return self._read()

    def _read(self) -> tuple[dict[str, Column], list[Point]]:
        plain = self._plain.copy()
        self._plain.clear()
        columns = {name: self._unchanged(name, entries) for name, entries in self.columns.items() if entries}
        self.columns.clear()
        names, parts = list(columns), list(columns.values())
        values = read_scalars(chain.from_iterable(part[1] for part in parts))
        items = read_scalars(chain.from_iterable(part[2] for part in parts))
        read: dict[str, Column] = {}
        start = 0
        for name, (steps, *_) in zip(names, parts, strict=True):
            stop = start + len(steps)
            read[name] = list(steps), values[start:stop], items[start:stop]
            start = stop
        return read, plain

    def _unchanged(self, name: str, entries: list[Logged]) -> tuple[Any, Any, Any]:
        """Steps, values and items, without the tensors that were changed in place after they were logged."""
        steps, values, items, versions = zip(*entries, strict=True)
        if set(versions) == {None}:
            return steps, values, items
        if None not in versions and tuple(map(_VERSION, values)) == versions:
            return steps, values, items
        kept = [entry for entry in entries if entry[3] is None or _VERSION(entry[1]) == entry[3]]
        if len(kept) == len(entries):
            return steps, values, items
        self.trusted.discard(name)
        self._copied.add(name)
        warnings.warn(
            f"log: {len(entries) - len(kept)} values of {name!r} are lost, from step {entries[0][0]} to "
            f"{entries[-1][0]}: the tensor was changed in place after it was logged, as `loss += ...` does. "
            f"From now on {name!r} is copied",
            stacklevel=2,
        )
        if not kept:
            return (), (), ()
        steps, values, items, _ = zip(*kept, strict=True)
        return steps, values, items

    def _merge(self, columns: dict[str, Column], plain: list[Point]) -> list[Point]:
        merged: list[list[Point]] = []
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
            merged.append(list(zip(repeat(full), steps, values)))
        if all(list(map(_STEP, one)) == list(map(_STEP, merged[0])) for one in merged[1:]):
            points = list(chain.from_iterable(zip(*merged, strict=True)))  # as sorting would have it
        else:
            points = sorted(chain.from_iterable(merged), key=_STEP)
        return points + plain

    def means(self) -> dict[str, float]:
        """The item-weighted mean of every name since the last `reset`; what is pending is not in it."""
        return {
            name: total / weight if weight else float("nan") for name, (total, weight) in self._sums.items()
        }

    def reset(self) -> None:
        """Begin a new epoch."""
        self.columns.clear()
        self._watched.clear()
        self._plain.clear()
        self._sums.clear()

    def state_dict(self) -> dict[str, Any]:
        """The sums so far; flush first."""
        return {name: list(sums) for name, sums in self._sums.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.columns.clear()
        self._plain.clear()
        self._sums = {name: list(sums) for name, sums in state.items()}


def _share_memory(one: Tensor, other: Tensor) -> bool:
    """Whether both are the same parameter, buffer or part of one; fused optimizers count no versions."""
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


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
