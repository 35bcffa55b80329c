"""Values that several processes log, and metrics that several processes count."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

from treadle.log import Entry, MetricLog, Point
from treadle.metrics import Metric

Gather = Callable[[Any], list[Any]]


class SharedLog(MetricLog):
    """A log in which the values of all processes meet when it is flushed, which all do at the same steps.

    Micro-batches of other processes count like micro-batches of this one, so every process has the same
    points and means. What belongs in no average (`record`) is that of rank 0.
    """

    def __init__(self, prefix: str, gather: Gather) -> None:
        super().__init__(prefix)
        self._gather = gather

    def _collect(self) -> tuple[list[Entry], list[Point]]:
        entries, plain = self._read()
        parts = self._gather([[list(entry) for entry in entries], [list(point) for point in plain]])
        joined = [entry for part in parts for entry in part[0]]
        joined.sort(key=lambda entry: entry[1])  # stable: by step, then by rank
        return [(n, s, v, w) for n, s, v, w in joined], [(n, s, v) for n, s, v in parts[0][1]]


def merged(metrics: Mapping[str, Metric], states: list[dict[str, Any]]) -> dict[str, Metric]:
    """Metrics that have counted what all processes did, given each one's states by name."""
    joined = {}
    for name, metric in metrics.items():
        joined[name] = one = deepcopy(metric)
        one.reset()
        one.merge([state[name] for state in states])
    return joined
