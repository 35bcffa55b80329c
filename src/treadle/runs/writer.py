"""The metric store's writing side."""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from operator import index
from pathlib import Path
from typing import Any

import numpy as np

from treadle.runs import files, schema
from treadle.runs.errors import RunError
from treadle.runs.media import TABLE, Medium, has_table
from treadle.runs.store import Store, epoch_values
from treadle.runs.tails import Curves, Point, Tails, curves_of

_BATCH = 65_536  # points taken from an iterator at once: bounds the memory of a bulk append
_TICK_SECONDS = 1.0


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
        self._step = self._epoch = 0
        self._connection = schema.connect(path)
        self._tails = Tails(self._connection)
        self._finalizer = weakref.finalize(self, self._connection.close)
        self._finalizer.atexit = False
        in_memory = str(path) == ":memory:"
        try:
            if not self._connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
                schema.create(self._connection)
            schema.check_version(self._connection, path)
            self._has_wal = not in_memory and schema.choose_journal(self._connection, self.path)
            with schema.readable(path):
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
        with self._lock, schema.readable(self.path):
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
                self._append(curves_of(batch))

    def append_curves(self, curves: Curves) -> None:
        """Add points given as steps and values by name."""
        with self._transaction():
            self._append(curves)

    def _append(self, curves: Curves) -> None:
        self._step = max(self._step, self._tails.append(curves))
        if self._now() - self._last_tick >= _TICK_SECONDS:
            self._tick()

    def append_epoch(self, epoch: int, step: int, values: Mapping[str, float]) -> None:
        """Add the row of a finished epoch; a row that is there already gets the new values in addition."""
        for name in ("epoch", "step"):
            if name in values:
                raise RunError(
                    self.path, f"{name!r} is a column of the history itself; name the value otherwise"
                )
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

    def add_media(self, media: Iterable[Medium]) -> None:
        """Add texts, pictures and histograms in one transaction."""
        with self._transaction():
            self._connection.execute(TABLE)
            now = self._now()
            sql = "INSERT OR REPLACE INTO medium (kind, name, step, time, data) VALUES (?, ?, ?, ?, ?)"
            rows = [(one.kind, one.name, index(one.step), now, one.data) for one in media]
            self._connection.executemany(sql, rows)

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

    def counts(self) -> dict[str, int]:
        """How many points each series has."""
        with self._lock:
            return self._tails.counts()

    def rewind(self, step: int, counts: Mapping[str, int] | None = None) -> None:
        """Remove every point, epoch, event and clock row after a step: the store is then as it was there.

        Of the points up to the step only the first `counts[name]` of each series stay, where that is given.
        """
        step = index(step)
        with self._transaction():
            self._tails.cut(step, counts)
            media = ("medium",) if has_table(self._connection) else ()
            for table in ("epoch", "event", "clock", *media):
                self._connection.execute(f"DELETE FROM {table} WHERE step > ?", (step,))
            self._load_progress()
            self._tick()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._check_process()
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield
                self._connection.execute("COMMIT")
            except BaseException as error:
                with schema.readable(self.path):
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
        self._tails.load()
        self._load_progress()
        (last,) = self._connection.execute("SELECT max(time) FROM clock").fetchone()
        self._monotonic, self._wall = time.monotonic(), max(time.time(), last or 0.0)
        self._last_tick = last or 0.0

    def _load_progress(self) -> None:
        tables = {"tail": "last", "chunk": "last", "epoch": "step", "clock": "step"}
        steps = [f"coalesce((SELECT max({column}) FROM {table}), 0)" for table, column in tables.items()]
        sql = f"SELECT max({', '.join(steps)}), coalesce((SELECT max(epoch) FROM epoch), 0)"
        self._step, self._epoch = self._connection.execute(sql).fetchone()
