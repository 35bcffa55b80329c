"""The metric store: every number of a run in one SQLite file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from treadle.runs import chunks, files, schema
from treadle.runs.chunks import Buckets, Chunk, Series, Steps, Values
from treadle.runs.errors import RunError
from treadle.runs.media import Medium, read_media


class Event(NamedTuple):
    """Something that happened: `time` is seconds since 1970, `details` what the writer added."""

    kind: str
    step: int
    time: float
    details: dict[str, Any]


class Clock(NamedTuple):
    """When which step was reached: three arrays of one length; `times` (seconds since 1970) never falls."""

    steps: Steps
    epochs: Steps
    times: Values


class EpochRow(NamedTuple):
    """The values of one finished epoch."""

    epoch: int
    step: int
    values: dict[str, float]


class Store:
    """The metrics of a run that this process does not write. Every question opens and closes the file.

    So it answers while another process writes, after that one was killed, and in a folder where nothing
    may be created; and no question blocks the writer for longer than it takes.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def reading(self) -> AbstractContextManager[sqlite3.Connection]:
        """A connection to ask, which sees one moment of the file."""
        return schema.reading(self.path)

    def close(self) -> None:
        """Nothing stays open."""

    def names(self) -> list[str]:
        """The series recorded per step, in the order of their first points."""
        with self.reading() as connection:
            return [name for (name,) in connection.execute("SELECT name FROM series ORDER BY id")]

    def series(self, name: str) -> Series:
        """All points of a series, by step.

        Raises:
            KeyError: there is no such series.
        """
        with self.reading() as connection:
            identity = self._identity(connection, name)
            return chunks.ordered(read_points(connection, identity, 0))

    def points_at(self, step: int) -> list[tuple[str, float]]:
        """The name and value of every point of one step."""
        with self.reading() as connection:
            names = dict(connection.execute("SELECT id, name FROM series").fetchall())
            sql = """SELECT series FROM chunk WHERE first <= ?1 AND last >= ?1
                     UNION SELECT series FROM tail ORDER BY 1"""  # tails are short
            found = []
            for (identity,) in connection.execute(sql, (step,)).fetchall():
                if identity not in names:
                    raise RunError(self.path, f"is damaged: there is no series {identity!r}")
                chunk = "SELECT min(position) FROM chunk WHERE series = ? AND last >= ?"
                (position,) = connection.execute(chunk, (identity, step)).fetchone()
                if position is None:  # in the tail alone
                    parts = _read_tail(connection, identity, 0)
                else:
                    parts = read_points(connection, identity, position)
                found += [(names[identity], value) for value in parts.values[parts.steps == step].tolist()]
            return found

    def downsample(self, name: str, buckets: int) -> Buckets:
        """A series in at most `buckets` numbers. Long ones are read from the headers of their chunks, in
        time that does not depend on the points between; the bounds of buckets are then those of chunks.

        Raises:
            KeyError: there is no such series.
            ValueError: `buckets` is not positive.
        """
        if buckets < 1:
            raise ValueError(f"downsample: buckets is {buckets!r}; it must be at least 1")
        with self.reading() as connection:
            identity = self._identity(connection, name)
            (full,) = connection.execute(
                "SELECT count(*) FROM chunk WHERE series = ?", (identity,)
            ).fetchone()
            if full < 4 * buckets:
                series = chunks.ordered(read_points(connection, identity, 0))
                return chunks.merge(chunks.of_points(series), buckets)
            sql = "SELECT count, first, last, header FROM chunk WHERE series = ? ORDER BY position"
            counts, firsts, lasts, headers = zip(*connection.execute(sql, (identity,)), strict=True)
            parts = chunks.of_headers(counts, firsts, lasts, b"".join(headers))
            tail = chunks.of_points(_read_tail(connection, identity, 0))
            return chunks.merge(chunks.join(parts, chunks.merge(tail, 1)), buckets)

    def epochs(self) -> list[EpochRow]:
        """The rows of the history."""
        with self.reading() as connection:
            rows = connection.execute("SELECT epoch, step, names, numbers FROM epoch ORDER BY epoch")
            return [
                EpochRow(epoch, step, epoch_values(names, numbers)) for epoch, step, names, numbers in rows
            ]

    def events(self) -> list[Event]:
        """The events in the order in which they happened."""
        with self.reading() as connection:
            rows = connection.execute("SELECT kind, step, time, details FROM event ORDER BY id")
            return [Event(kind, step, time, files.decode(details)) for kind, step, time, details in rows]

    def clock(self) -> Clock:
        """When which step was reached, about once a second."""
        with self.reading() as connection:
            rows = connection.execute("SELECT step, epoch, time FROM clock ORDER BY id").fetchall()
            steps, epochs, times = zip(*rows, strict=True) if rows else ((), (), ())
            return Clock(np.array(steps, np.int64), np.array(epochs, np.int64), np.array(times, np.float64))

    def media(
        self,
        kind: str | None = None,
        name: str | None = None,
        step: int | None = None,
        newest: bool = False,
    ) -> list[Medium]:
        """Texts, pictures and histograms, by step."""
        with self.reading() as connection:
            return read_media(connection, kind, name, step, newest)

    def _identity(self, connection: sqlite3.Connection, name: str) -> int:
        row = connection.execute("SELECT id FROM series WHERE name = ?", (name,)).fetchone()
        if row is None:
            known = [known for (known,) in connection.execute("SELECT name FROM series ORDER BY id")]
            if name in known:
                raise RunError(self.path, f"is damaged: its index lacks the series {name!r}")
            raise KeyError(
                f"{self.path}: there is no series {name!r}; there are {', '.join(known) or 'none'}"
            )
        return int(row[0])


def read_points(connection: sqlite3.Connection, identity: int, position: int) -> Series:
    """The points of a series from a position on that begins a chunk or the tail."""
    parts = chunks.unpack(_read_chunks(connection, identity, position))
    tail = _read_tail(connection, identity, position)
    return Series(np.concatenate([parts.steps, tail.steps]), np.concatenate([parts.values, tail.values]))


def epoch_values(names: str, numbers: bytes) -> dict[str, float]:
    """The values of an epoch from its row."""
    return dict(zip(json.loads(names), np.frombuffer(numbers, "<f8").tolist(), strict=True))


def _read_chunks(connection: sqlite3.Connection, identity: int, position: int) -> Iterator[Chunk]:
    sql = """SELECT count, first, last, header, steps, numbers FROM chunk JOIN block ON block.id = chunk.block
             WHERE series = ? AND position >= ? ORDER BY position"""
    return (Chunk(*row) for row in connection.execute(sql, (identity, position)))


def _read_tail(connection: sqlite3.Connection, identity: int, position: int) -> Series:
    sql = "SELECT steps, numbers FROM tail WHERE series = ? AND position >= ? ORDER BY position"
    rows = connection.execute(sql, (identity, position)).fetchall()
    steps = np.frombuffer(b"".join(steps for steps, _ in rows), "<i8").astype(np.int64)
    values = np.frombuffer(b"".join(numbers for _, numbers in rows), "<f8").astype(np.float64)
    if len(steps) != len(values):
        raise ValueError(f"{len(steps)} steps have {len(values)} values")
    return Series(steps, values)
