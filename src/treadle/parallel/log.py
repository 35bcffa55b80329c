"""Values that several processes log, and metrics that several processes count."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from operator import itemgetter
from typing import Any

from treadle.log import MetricLog, Point
from treadle.metrics import Metric
from treadle.pending import Column, Pending

Gather = Callable[[Any], list[Any]]


class SharedLog(MetricLog):
    """A log in which the values of all processes meet when it is flushed, which all do at the same steps.

    Micro-batches of other processes count like micro-batches of this one, so every process has the same
    points and means. What belongs in no average (`record`) is that of rank 0.
    """

    def __init__(self, prefix: str, gather: Gather, pending: Pending | None = None) -> None:
        super().__init__(prefix, pending)
        self._gather = gather

    def _collect(self) -> tuple[dict[str, Column], list[Point]]:
        columns, plain = self._read()
        parts = self._gather([{n: list(c) for n, c in columns.items()}, [list(point) for point in plain]])
        joined: dict[str, Column] = {}
        for name in dict.fromkeys(name for part, _ in parts for name in part):
            entries = [entry for part, _ in parts if name in part for entry in zip(*part[name], strict=True)]
            entries.sort(key=itemgetter(0))  # stable: by step, then by rank
            steps, values, items = zip(*entries, strict=True) if entries else ((), (), ())
            joined[name] = list(steps), list(values), list(items)
        return joined, [(name, step, value) for name, step, value in parts[0][1]]


def merged(metrics: Mapping[str, Metric], states: list[dict[str, Any]]) -> dict[str, Metric]:
    """Metrics that have counted what all processes did, given each one's states by name."""
    joined = {}
    for name, metric in metrics.items():
        joined[name] = one = deepcopy(metric)
        one.reset()
        one.merge([state[name] for state in states])
    return joined
