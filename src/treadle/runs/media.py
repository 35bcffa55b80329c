"""Texts, pictures and histograms of a run: one row each, in the file of the metrics."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

from treadle.runs.errors import RunError

KINDS = ("text", "picture", "histogram")

# Made when the first of them is recorded; most runs have none.
TABLE = """
CREATE TABLE IF NOT EXISTS medium (
    kind TEXT NOT NULL, name TEXT NOT NULL, step INTEGER NOT NULL, time REAL NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (name, kind, step)
)
"""
PNG = b"\x89PNG\r\n\x1a\n"


class Medium(NamedTuple):
    """Something to look at that is no number.

    Attributes:
        kind: "text", "picture" or "histogram".
        name: full name, as that of a series ("val/confusion").
        step: the optimizer step.
        data: UTF-8 text; a PNG file; or JSON, see `histogram`.
        time: seconds since 1970 when it was recorded; 0 before that.
    """

    kind: str
    name: str
    step: int
    data: bytes
    time: float = 0.0

    @property
    def text(self) -> str:
        """A text as it was given."""
        return self.data.decode()

    @property
    def histogram(self) -> tuple[list[float], list[int]]:
        """The edges of the bins and the counts between them: one number more, and one less."""
        found = json.loads(self.data)
        return found["edges"], found["counts"]


def of_text(name: str, step: int, text: str) -> Medium:
    """A text."""
    return Medium("text", name, step, str(text).encode("utf-8", "replace"))


def of_picture(name: str, step: int, png: bytes) -> Medium:
    """A picture.

    Raises:
        RunError: the bytes are no PNG file.
    """
    if not png.startswith(PNG):
        raise RunError(name, "is no picture that can be recorded: give the bytes of a PNG file")
    return Medium("picture", name, step, png)


def of_histogram(name: str, step: int, edges: Sequence[float], counts: Sequence[int]) -> Medium:
    """Counts between rising edges.

    Raises:
        RunError: there is not one edge more than counts, or an edge is not finite.
    """
    if len(edges) != len(counts) + 1 or not counts or not all(map(math.isfinite, edges)):
        raise RunError(name, f"is no histogram: {len(edges)} edges for {len(counts)} counts, all finite")
    numbers: dict[str, Any] = {"edges": list(map(float, edges)), "counts": list(map(int, counts))}
    return Medium("histogram", name, step, json.dumps(numbers).encode())


def has_table(connection: sqlite3.Connection) -> bool:
    """Whether anything was ever recorded here."""
    found = connection.execute("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'medium'")
    return found.fetchone() is not None


def read_media(
    connection: sqlite3.Connection, kind: str | None, name: str | None, step: int | None, newest: bool
) -> list[Medium]:
    """What is recorded, by step; the newest of each name alone where that is asked for."""
    if not has_table(connection):
        return []
    chosen = "WHERE (?1 IS NULL OR kind = ?1) AND (?2 IS NULL OR name = ?2) AND (?3 IS NULL OR step = ?3)"
    columns = "kind, name, max(step), data, time" if newest else "kind, name, step, data, time"
    grouped = "GROUP BY kind, name" if newest else ""
    sql = f"SELECT {columns} FROM medium {chosen} {grouped} ORDER BY step, rowid"
    return [Medium(*row) for row in connection.execute(sql, (kind, name, step))]
