"""The points that are in no chunk yet, and how they get into chunks and out again."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterable, Mapping, Sequence
from operator import index

import numpy as np

from treadle.runs import chunks
from treadle.runs.chunks import POINTS
from treadle.runs.errors import RunError
from treadle.runs.store import read_points

Point = tuple[str, int, float]

Curves = Mapping[str, tuple[Sequence[int], Sequence[float]]]
"""Steps, and the value at each, by the name of a series; at least one point each."""

_Row = tuple[int, int, int, bytes, bytes]
"""Points of one series that were appended together: series, position, greatest step, steps, values."""


class _Tail:
    """What the writer knows of one series: its number, and the points that are in no chunk yet."""

    def __init__(self, identity: int, position: int) -> None:
        self.identity = identity
        self.position = position  # points of the series that are in chunks
        self.steps: list[int] = []
        self.values: list[float] = []


class Tails:
    """The series of a store that is written: appended to and cut inside the caller's transaction.

    What is in memory mirrors the table `tail`, so that an append reads nothing. After a transaction that
    was rolled back, `load` again.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._tails: dict[str, _Tail] = {}

    def load(self) -> None:
        """Read what the database holds."""
        self._tails = {}
        by_identity: dict[int, _Tail] = {}
        chunked = "(SELECT coalesce(max(position + count), 0) FROM chunk WHERE series = id)"
        for name, identity, position in self._connection.execute(f"SELECT name, id, {chunked} FROM series"):
            by_identity[identity] = self._tails[name] = _Tail(identity, position)
        rows = self._connection.execute("SELECT series, steps, numbers FROM tail ORDER BY series, position")
        for identity, steps, numbers in rows:
            tail = by_identity.get(identity)
            if tail is None:
                raise ValueError(f"there are points of a series {identity!r}, and no such series")
            tail.steps += np.frombuffer(steps, "<i8").tolist()
            tail.values += np.frombuffer(numbers, "<f8").tolist()
            if len(tail.steps) != len(tail.values):
                raise ValueError(
                    f"a row of series {identity} has {len(steps)} bytes of steps, {len(numbers)} of values"
                )

    def append(self, curves: Curves) -> int:
        """Add steps and values by name; returns the greatest step among them (0 if there are none)."""
        numbers = {name: (_whole(steps), _real(values)) for name, (steps, values) in curves.items()}
        for name, (steps, values) in numbers.items():
            if len(steps) != len(values):
                raise RunError("append_curves", f"{name!r} has {len(steps)} steps and {len(values)} values")
        rows: list[_Row] = []
        full: list[_Tail] = []
        for name, (steps, values) in numbers.items():
            tail = self._tails.get(name) or self._new_series(name)
            start = len(tail.steps)
            tail.steps += steps
            tail.values += values
            if len(tail.steps) >= POINTS:
                full.append(tail)
                self._compact(tail)
                start = 0
            new = tail.steps[start:]
            if new:
                packed = chunks.packed_steps(new), chunks.packed_values(tail.values[start:])
                rows.append((tail.identity, tail.position + start, max(new), *packed))
        if full:
            sql = "DELETE FROM tail WHERE series = ?"
            self._connection.executemany(sql, [(tail.identity,) for tail in full])
        self._connection.executemany("INSERT INTO tail VALUES (?, ?, ?, ?, ?)", rows)
        return max((max(steps) for steps, _ in numbers.values()), default=0)

    def counts(self) -> dict[str, int]:
        """How many points each series has."""
        return {name: tail.position + len(tail.steps) for name, tail in self._tails.items()}

    def cut(self, step: int, counts: Mapping[str, int] | None = None) -> None:
        """Remove the points after a step, those that a series has beyond `counts`, and empty series."""
        for name, tail in self._tails.items():
            self._cut(name, tail, step, sys.maxsize if counts is None else counts.get(name, 0))
        self._connection.execute("DELETE FROM block WHERE id NOT IN (SELECT block FROM chunk)")
        in_use = "SELECT series FROM chunk UNION SELECT series FROM tail"
        self._connection.execute(f"DELETE FROM series WHERE id NOT IN ({in_use})")
        self._tails = {name: tail for name, tail in self._tails.items() if tail.position or tail.steps}

    def _cut(self, name: str, tail: _Tail, step: int, count: int) -> None:
        # The first chunk that holds such a point and all behind it are written anew, so what was cut
        # looks exactly like what never went further.
        sql = "SELECT min(position) FROM chunk WHERE series = ? AND (last > ? OR position + count > ?)"
        (position,) = self._connection.execute(sql, (tail.identity, step, count)).fetchone()
        if position is None:
            if tail.position + len(tail.steps) <= count and all(known <= step for known in tail.steps):
                return
            position = tail.position
        steps, values = read_points(self._connection, tail.identity, position)
        kept = (steps <= step) & (np.arange(len(steps)) < count - position)
        for table in ("chunk", "tail"):
            sql = f"DELETE FROM {table} WHERE series = ? AND position >= ?"
            self._connection.execute(sql, (tail.identity, position))
        tail.position, tail.steps, tail.values = position, [], []
        if kept.any():
            self.append({name: (steps[kept].tolist(), values[kept].tolist())})

    def _compact(self, tail: _Tail) -> None:
        """Make chunks of what fills them; what the table has of this tail is the caller's to delete."""
        full = len(tail.steps) // POINTS * POINTS
        for start in range(0, full, POINTS):
            chunk = chunks.pack(tail.steps[start : start + POINTS], tail.values[start : start + POINTS])
            sql = "INSERT INTO block (steps, numbers) VALUES (?, ?)"
            block = self._connection.execute(sql, (chunk.steps, chunk.numbers)).lastrowid
            row = (tail.identity, tail.position, chunk.count, chunk.first, chunk.last, chunk.header, block)
            self._connection.execute("INSERT INTO chunk VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            tail.position += chunk.count
        del tail.steps[:full], tail.values[:full]

    def _new_series(self, name: str) -> _Tail:
        if not isinstance(name, str):
            raise RunError("append_steps", f"{name!r} is not a string, so it cannot name a series")
        identity = self._connection.execute("INSERT INTO series (name) VALUES (?)", (name,)).lastrowid
        assert identity is not None
        tail = self._tails[name] = _Tail(identity, 0)
        return tail


def curves_of(points: Iterable[Point]) -> Curves:
    """Points (name, step, value), by name."""
    curves: dict[str, tuple[list[int], list[float]]] = {}
    for name, step, value in points:
        curve = curves.get(name)
        if curve is None:
            curves[name] = [step], [value]
        else:
            curve[0].append(step)
            curve[1].append(value)
    return curves


def _whole(steps: Sequence[int]) -> Sequence[int]:
    return steps if set(map(type, steps)) == {int} else list(map(index, steps))


def _real(values: Sequence[float]) -> Sequence[float]:
    return values if set(map(type, values)) == {float} else list(map(float, values))
