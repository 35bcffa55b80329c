"""The metric store's writing side."""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import struct
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from operator import index
from pathlib import Path
from typing import Any

import numpy as np

from treadle.runs import chunks, files, schema
from treadle.runs.chunks import POINTS, Series
from treadle.runs.errors import RunError
from treadle.runs.store import Store, epoch_values, read_points

Point = tuple[str, int, float]

_BATCH = 65_536  # points taken from an iterator at once: bounds the memory of a bulk append
_TICK_SECONDS = 1.0
_double = struct.Struct("<d").pack


class _Tail:
    """What the writer knows of one series: its number, and the points that are in no chunk yet."""

    def __init__(self, identity: int, position: int) -> None:
        self.identity = identity
        self.position = position  # points of the series that are in chunks
        self.steps: list[int] = []
        self.values: list[float] = []


class WritableStore(Store):
    """The metrics of the run that this process writes; safe to use from several threads.

    Each `append_*`, `add_event` and `rewind` is one transaction: after a kill all of it is there or nothing.
    `flush` makes everything before it survive a power cut as well.

    Raises:
        RunError: the file cannot be opened, or a later write fails (a full disk); the store then still
            holds what it held before.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__(path)
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._tails: dict[str, _Tail] = {}
        self._step = self._epoch = 0
        self._connection = schema.connect(path)
        self._finalizer = weakref.finalize(self, self._connection.close)
        self._finalizer.atexit = False
        in_memory = str(path) == ":memory:"
        try:
            if not self._connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
                schema.create(self._connection)
            schema.check_version(self._connection, path)
            self._has_wal = not in_memory and schema.choose_journal(self._connection, self.path)
            self._load()
        except sqlite3.Error as error:
            self._finalizer()
            raise RunError(path, f"cannot be opened: {error}") from error
        except BaseException:
            self._finalizer()
            raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The writer's own connection."""
        with self._lock:
            yield self._connection

    def close(self) -> None:
        """Fold the log into the file and let go of it."""
        with self._lock:
            schema.leave_journal(self._connection)
            self._finalizer()

    def append_steps(self, points: Iterable[Point]) -> None:
        """Add points (name, step, value), which may be any number and come from an iterator."""
        points = iter(points)
        with self._transaction():
            while batch := list(itertools.islice(points, _BATCH)):
                self._append(batch)
            if self._now() - self._last_tick >= _TICK_SECONDS:
                self._tick()

    def append_epoch(self, epoch: int, step: int, values: Mapping[str, float]) -> None:
        """Add the row of a finished epoch; a row that is there already gets the new values in addition."""
        with self._transaction():
            sql = "SELECT names, numbers FROM epoch WHERE epoch = ?"
            row = self._connection.execute(sql, (index(epoch),)).fetchone()
            merged = {**(epoch_values(*row) if row else {}), **values}
            numbers = np.array([float(value) for value in merged.values()], "<f8").tobytes()
            names = json.dumps([str(name) for name in merged])
            sql = "INSERT OR REPLACE INTO epoch VALUES (?, ?, ?, ?)"
            self._connection.execute(sql, (index(epoch), index(step), names, numbers))
            self._step, self._epoch = max(self._step, index(step)), index(epoch)
            self._tick()

    def add_event(self, kind: str, step: int, details: Mapping[str, Any]) -> None:
        """Add an event that happens now."""
        text = files.encode(details, f"event {kind!r}")
        with self._transaction():
            sql = "INSERT INTO event (kind, step, time, details) VALUES (?, ?, ?, ?)"
            self._connection.execute(sql, (str(kind), index(step), self._now(), text))

    def flush(self) -> None:
        """Sync to the disk: a power cut after this loses nothing from before it.

        Only here, because a sync costs milliseconds and a commit without one microseconds.
        """
        with self._lock:
            self._check_process()
            if self._has_wal:  # syncing the commit of a clock row syncs the whole log before it
                self._connection.execute("PRAGMA synchronous = FULL")
            try:
                with self._transaction():
                    self._tick()
            finally:
                if self._has_wal:
                    self._connection.execute("PRAGMA synchronous = NORMAL")

    def rewind(self, step: int) -> None:
        """Remove every point, epoch, event and clock row after a step: the store is then as it was there."""
        step = index(step)
        with self._lock:
            with self._transaction():
                self._remove_after(step)
                self._load_progress()
                self._tick()
            self._load()

    def _remove_after(self, step: int) -> None:
        for name, tail in self._tails.items():
            self._cut(name, tail, step)
        for table in ("epoch", "event", "clock"):
            self._connection.execute(f"DELETE FROM {table} WHERE step > ?", (step,))
        self._connection.execute("DELETE FROM block WHERE id NOT IN (SELECT block FROM chunk)")
        in_use = "SELECT series FROM chunk UNION SELECT series FROM tail"
        self._connection.execute(f"DELETE FROM series WHERE id NOT IN ({in_use})")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._check_process()
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield
                self._connection.execute("COMMIT")
            except BaseException as error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                self._load()
                if isinstance(error, sqlite3.Error):
                    raise RunError(self.path, f"cannot be written: {error}") from error
                raise

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise RunError(
                self.path, f"was opened by process {self._process}; a forked child must not write it"
            )
        if not self._finalizer.alive:
            raise RunError(self.path, "is closed")

    def _append(self, points: Iterable[Point]) -> None:
        groups: dict[str, tuple[list[int], list[float]]] = {}
        for name, step, value in points:
            group = groups.get(name)
            if group is None:
                group = groups[name] = ([], [])
            group[0].append(index(step))
            group[1].append(value)
        rows: list[tuple[int, int, int, bytes]] = []
        for name, (steps, values) in groups.items():
            tail = self._tails.get(name) or self._new_series(name)
            self._step = max(self._step, max(steps))
            start = len(tail.steps)
            tail.steps += steps
            tail.values += map(float, values)
            if len(tail.steps) >= POINTS:
                self._compact(tail, has_rows=start > 0)
                start = 0
            position = tail.position
            new = range(start, len(tail.steps))
            rows += [(tail.identity, position + i, tail.steps[i], _double(tail.values[i])) for i in new]
        self._connection.executemany("INSERT INTO tail VALUES (?, ?, ?, ?)", rows)

    def _compact(self, tail: _Tail, *, has_rows: bool) -> None:
        if has_rows:
            self._connection.execute("DELETE FROM tail WHERE series = ?", (tail.identity,))
        full = len(tail.steps) // POINTS * POINTS
        steps, values = np.array(tail.steps[:full], np.int64), np.array(tail.values[:full], np.float64)
        for start in range(0, full, POINTS):
            chunk = chunks.pack(steps[start : start + POINTS], values[start : start + POINTS])
            sql = "INSERT INTO block (steps, numbers) VALUES (?, ?)"
            block = self._connection.execute(sql, (chunk.steps, chunk.numbers)).lastrowid
            row = (tail.identity, tail.position, chunk.count, chunk.first, chunk.last, chunk.header, block)
            self._connection.execute("INSERT INTO chunk VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            tail.position += chunk.count
        del tail.steps[:full], tail.values[:full]

    def _cut(self, name: str, tail: _Tail, step: int) -> None:
        """Drop the points after a step: the first chunk that holds one and all behind it are written anew."""
        identity = tail.identity
        sql = "SELECT min(position) FROM chunk WHERE series = ? AND last > ?"
        (position,) = self._connection.execute(sql, (identity, step)).fetchone()
        if position is None:
            position = tail.position
        kept = _until(read_points(self._connection, identity, position), step)
        for table in ("chunk", "tail"):
            sql = f"DELETE FROM {table} WHERE series = ? AND position >= ?"
            self._connection.execute(sql, (identity, position))
        tail.position, tail.steps, tail.values = position, [], []
        steps, values = kept.steps.tolist(), kept.values.tolist()
        if steps:
            self._append(zip(itertools.repeat(name), steps, values, strict=False))

    def _new_series(self, name: str) -> _Tail:
        if not isinstance(name, str):
            raise RunError(self.path, f"{name!r} is not a string, so it cannot name a series")
        identity = self._connection.execute("INSERT INTO series (name) VALUES (?)", (name,)).lastrowid
        assert identity is not None
        tail = self._tails[name] = _Tail(identity, 0)
        return tail

    def _now(self) -> float:
        # Wall time once, then the monotonic clock, and never before what is recorded: setting the
        # computer's clock moves no point.
        return self._wall + (time.monotonic() - self._monotonic)

    def _tick(self) -> None:
        now = self._now()
        sql = "INSERT INTO clock (step, epoch, time) VALUES (?, ?, ?)"
        self._connection.execute(sql, (self._step, self._epoch, now))
        self._last_tick = now

    def _load(self) -> None:
        """Read into memory what the database holds: at the start, and after a failed write."""
        connection = self._connection
        self._tails = {}
        by_identity: dict[int, _Tail] = {}
        sql = """SELECT name, id, (SELECT coalesce(max(position + count), 0) FROM chunk WHERE series = id)
                 FROM series"""
        for name, identity, position in connection.execute(sql):
            by_identity[identity] = self._tails[name] = _Tail(identity, position)
        for identity, step, value in connection.execute(
            "SELECT series, step, value FROM tail ORDER BY position"
        ):
            by_identity[identity].steps.append(step)
            by_identity[identity].values.append(struct.unpack("<d", value)[0])
        self._load_progress()
        (last,) = connection.execute("SELECT max(time) FROM clock").fetchone()
        self._monotonic, self._wall = time.monotonic(), max(time.time(), last or 0.0)
        self._last_tick = last or 0.0

    def _load_progress(self) -> None:
        steps = ", ".join(
            f"coalesce((SELECT max(step) FROM {table}), 0)" for table in ("tail", "epoch", "clock")
        )
        sql = (
            f"SELECT max({steps}, coalesce((SELECT max(last) FROM chunk), 0)), (SELECT max(epoch) FROM epoch)"
        )
        step, epoch = self._connection.execute(sql).fetchone()
        self._step, self._epoch = step, epoch or 0


def _until(series: Series, step: int) -> Series:
    keep = series.steps <= step
    return Series(series.steps[keep], series.values[keep])
