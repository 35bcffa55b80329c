"""Points packed into chunks with a header each, and curves drawn from the headers alone."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

POINTS = 200
"""Points in a full chunk: few enough to cut cheaply, enough that a header costs next to nothing."""

Steps = NDArray[np.int64]
Values = NDArray[np.float64]

_HEADER = np.dtype([("finite", "<i8"), ("minimum", "<f8"), ("maximum", "<f8"), ("total", "<f8")])


class Series(NamedTuple):
    """The points of one metric in the order of their steps; both arrays have shape (points,)."""

    steps: Steps
    values: Values


@dataclass(frozen=True)
class Buckets:
    """A series in few numbers: one entry for each run of neighbouring points, all of shape (buckets,).

    `minimum`, `maximum` and `mean` are over the finite values (NaN where there is none); `count - finite`
    is how many were NaN or infinite. A bucket covers the steps `first` to `last`.
    """

    first: Steps
    last: Steps
    minimum: Values
    maximum: Values
    mean: Values
    count: Steps
    finite: Steps


@dataclass(frozen=True, slots=True)
class Chunk:
    """One row of the table of chunks, with its packed points."""

    count: int
    first: int
    last: int
    header: bytes
    steps: bytes | None
    numbers: bytes


def pack(steps: list[int], values: list[float]) -> Chunk:
    """Pack points (at least one). Evenly spaced steps take no room: they follow from first, last, count."""
    count, first, last = len(steps), min(steps), max(steps)
    stride = steps[1] - first if count > 1 else 1
    # The arithmetic first: with a gap, all that could lie in it would be counted.
    fits = stride > 0 and last == first + stride * (count - 1)
    even = fits and steps == list(range(first, last + 1, stride))
    numbers = packed_values(values)
    return Chunk(count, first, last, _header(numbers), None if even else packed_steps(steps), numbers)


def packed_steps(steps: Sequence[int]) -> bytes:
    """Steps as little-endian integers of 64 bits."""
    return struct.pack(f"<{len(steps)}q", *steps)


def packed_values(values: Sequence[float]) -> bytes:
    """Values as little-endian doubles."""
    return struct.pack(f"<{len(values)}d", *values)


def unpack(chunks: Iterable[Chunk]) -> Series:
    """The points of several chunks, in the order in which they were appended."""
    chunks = list(chunks)
    if not chunks:
        return Series(np.empty(0, np.int64), np.empty(0, np.float64))
    values = np.frombuffer(b"".join(chunk.numbers for chunk in chunks), "<f8").astype(np.float64)
    return Series(np.concatenate([_steps(chunk) for chunk in chunks]), values)


def ordered(series: Series) -> Series:
    """Sorted by step; points of one step stay in the order in which they came."""
    if (np.diff(series.steps) >= 0).all():
        return series
    order = np.argsort(series.steps, kind="stable")
    return Series(series.steps[order], series.values[order])


def of_points(series: Series) -> Buckets:
    """Every point as its own bucket."""
    finite = np.isfinite(series.values)
    blank = np.where(finite, series.values, np.nan)
    ones = np.ones(len(finite), np.int64)
    return Buckets(series.steps, series.steps, blank, blank, blank, ones, finite.astype(np.int64))


def of_headers(counts: Sequence[int], firsts: Sequence[int], lasts: Sequence[int], headers: bytes) -> Buckets:
    """Every chunk as a bucket, without reading its points."""
    table = np.frombuffer(headers, _HEADER)
    finite = table["finite"].astype(np.int64)
    mean = np.full(len(table), np.nan)
    np.divide(table["total"], finite, out=mean, where=finite > 0)
    first, last = np.asarray(firsts, np.int64), np.asarray(lasts, np.int64)
    minimum, maximum = table["minimum"].astype(np.float64), table["maximum"].astype(np.float64)
    return Buckets(first, last, minimum, maximum, mean, np.asarray(counts, np.int64), finite)


def join(one: Buckets, other: Buckets) -> Buckets:
    """The buckets of one, then those of the other."""
    names = [field.name for field in fields(Buckets)]
    return Buckets(*(np.concatenate([getattr(one, name), getattr(other, name)]) for name in names))


def merge(parts: Buckets, buckets: int) -> Buckets:
    """Merge neighbours until at most `buckets` are left; exact for the points they hold."""
    size = len(parts.count)
    if size <= buckets:
        return parts
    starts = np.linspace(0, size, buckets, endpoint=False).astype(np.int64)
    finite = np.add.reduceat(parts.finite, starts)
    with np.errstate(over="ignore", invalid="ignore"):
        weighted = np.where(parts.finite > 0, parts.mean * parts.finite, 0.0)
        total = np.add.reduceat(weighted, starts)
    mean = np.full(len(starts), np.nan)
    np.divide(total, finite, out=mean, where=finite > 0)
    return Buckets(
        first=np.minimum.reduceat(parts.first, starts),
        last=np.maximum.reduceat(parts.last, starts),
        minimum=np.fmin.reduceat(parts.minimum, starts),
        maximum=np.fmax.reduceat(parts.maximum, starts),
        mean=mean,
        count=np.add.reduceat(parts.count, starts),
        finite=finite,
    )


def _header(numbers: bytes) -> bytes:
    values = np.frombuffer(numbers, "<f8")
    with np.errstate(over="ignore", invalid="ignore"):
        total = np.add.reduce(values)
        if not math.isfinite(total):  # one of the values is not, or the sum is too large
            values = values[np.isfinite(values)]
            total = np.add.reduce(values)
    least, greatest = (values.min(), values.max()) if len(values) else (math.nan, math.nan)
    return struct.pack("<qddd", len(values), least, greatest, total)  # as _HEADER reads it


def _steps(chunk: Chunk) -> Steps:
    if chunk.steps is not None:
        return np.frombuffer(chunk.steps, "<i8").astype(np.int64)
    stride = (chunk.last - chunk.first) // max(chunk.count - 1, 1)
    return np.arange(chunk.count, dtype=np.int64) * stride + chunk.first
