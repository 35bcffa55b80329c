"""Are two runs the same? And if not, where do they part, and what differed first?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from treadle.runs.record import Run

CAUSES = ("fingerprint/order", "train/loss", "fingerprint/gradient", "fingerprint/weights")
"""Within one step, what comes before what: data, loss, gradient, weights."""

ENVIRONMENT = ("seed", "device", "threads", "deterministic", "precision", "python", "versions", "git")


@dataclass(frozen=True)
class Parting:
    """Where two runs first differ.

    Attributes:
        step: the optimizer step.
        name: the series that differs there; where several do, the one that comes first within a step.
        values: what the two runs recorded, None where one has nothing for that step.
    """

    step: int
    name: str
    values: tuple[float | None, float | None]


@dataclass(frozen=True)
class Difference:
    """What differs between two runs.

    Attributes:
        config, environment: changed entries by dotted name, with both values.
        setup: the same of what the runs are made of; empty where one of them has no such record.
        parting: where the series first differ; None if all points they share are equal to the bit.
        lengths: the last steps of the two runs.
        weights: the fingerprints of the two final models; None where a run has not ended.
        compared: the series that both runs have.
    """

    config: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    setup: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    environment: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    parting: Parting | None = None
    lengths: tuple[int, int] = (0, 0)
    weights: tuple[str | None, str | None] = (None, None)
    compared: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Whether the two ended with the same weights after the same values."""
        return (
            self.parting is None and self.lengths[0] == self.lengths[1] and self.weights[0] == self.weights[1]
        )


def compare(one: Run, other: Run) -> Difference:
    """Compare two runs. Durations and rates of speed ("time/...") are left out."""
    shared = [name for name in one.names() if name in other.names() and not name.startswith("time/")]
    return Difference(
        config=tree_changes(one.config, other.config),
        setup=tree_changes(one.setup, other.setup) if one.setup and other.setup else {},
        environment=tree_changes(_watched(one.environment), _watched(other.environment)),
        parting=_first_parting(one, other, shared),
        lengths=(one.step, other.step),
        weights=(one.weights_sha256, other.weights_sha256),
        compared=tuple(shared),
    )


def _first_parting(one: Run, other: Run, names: Iterable[str]) -> Parting | None:
    partings = [parting for name in names if (parting := _parting(one, other, name)) is not None]
    return min(partings, key=lambda parting: (parting.step, _rank(parting.name)), default=None)


def _rank(name: str) -> tuple[int, str]:
    return (CAUSES.index(name) if name in CAUSES else 1, name)


def _parting(one: Run, other: Run, name: str) -> Parting | None:
    left, right = one.series(name), other.series(name)
    common = min(left.steps[-1], right.steps[-1]) if len(left.steps) and len(right.steps) else -1
    a, b = _until(left, common), _until(right, common)
    length = min(len(a[0]), len(b[0]))
    # Bits, not numbers: NaN equals NaN here, and 0.0 differs from -0.0.
    differs = (a[0][:length] != b[0][:length]) | (
        a[1][:length].view(np.int64) != b[1][:length].view(np.int64)
    )
    places = np.flatnonzero(differs)
    if len(places):
        place = int(places[0])
        step = int(min(a[0][place], b[0][place]))
        return Parting(step, name, (_at(a, place, step), _at(b, place, step)))
    if len(a[0]) != len(b[0]):
        longer = a if len(a[0]) > length else b
        step = int(longer[0][length])
        return Parting(step, name, (_at(a, length, step), _at(b, length, step)))
    return None


def _until(series: Any, step: int) -> tuple[Any, Any]:
    count = int(np.searchsorted(series.steps, step, side="right"))
    return series.steps[:count], np.ascontiguousarray(series.values[:count])


def _at(series: tuple[Any, Any], place: int, step: int) -> float | None:
    steps, values = series
    return float(values[place]) if place < len(steps) and int(steps[place]) == step else None


def _watched(environment: Mapping[str, Any]) -> dict[str, Any]:
    return {name: environment.get(name) for name in ENVIRONMENT if environment.get(name) is not None}


def _flat(tree: Any, path: str = "") -> dict[str, Any]:
    if isinstance(tree, Mapping):
        return {
            k: v
            for key, value in tree.items()
            for k, v in _flat(value, f"{path}.{key}" if path else key).items()
        }
    if isinstance(tree, (list, tuple)):
        return {k: v for key, value in enumerate(tree) for k, v in _flat(value, f"{path}[{key}]").items()}
    return {path: tree}


def tree_changes(one: Any, other: Any) -> dict[str, tuple[Any, Any]]:
    """The leaves by dotted name in which two trees of dictionaries and lists differ, with both values."""
    left, right = _flat(one), _flat(other)
    names = sorted(set(left) | set(right))
    pairs = {name: (left.get(name), right.get(name)) for name in names}
    # NaN, which is no equal of itself, is the same here.
    return {name: (a, b) for name, (a, b) in pairs.items() if a != b and (a == a or b == b)}
