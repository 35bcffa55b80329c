"""The order of samples: a random-access permutation that is a pure function of (seed, epoch, position)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
_Words = NDArray[np.uint64]

MAX_LENGTH = 2**62
_WORD = 2**64 - 1
_BLOCK = (
    2**14
)  # positions worked on at once: small enough to stay in the cache, large enough to amortise calls
_ORDER, _SAMPLE = 0x6F72646572, 0x73616D706C65  # keep the two uses of one seed apart
_SHIFT = np.uint64(32)
_FIRST, _SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)


def mix(*numbers: int) -> int:
    """Hash whole numbers to one of 0 .. 2**64 - 1: SplitMix64 (Steele et al., 2014), chained."""
    state = 0
    for number in numbers:
        state = ((state ^ number) + 0x9E3779B97F4A7C15) & _WORD
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _WORD
        state ^= state >> 31
    return state


def sample_seed(seed: int, epoch: int, index: int) -> int:
    """The seed, 0 .. 2**64 - 1, of whatever is random about sample `index` in `epoch`."""
    return mix(_SAMPLE, seed, epoch, index)


@dataclass(frozen=True)
class Order:
    """The order in which an epoch visits `length` samples.

    With `shuffle`, a Feistel network over the pairs (position // columns, position % columns), its halves
    added modulo their sizes, with cycle walking back into 0 .. length - 1 (Black and Rogaway, "Ciphers with
    arbitrary finite domains", 2002). Any position is computed on its own, so nothing is stored and the
    epoch can be entered anywhere. Without `shuffle` it is 0, 1, 2, ...

    Raises:
        ValueError: `length` is negative or above 2**62, or `seed` or `epoch` is negative.
    """

    length: int
    seed: int
    epoch: int
    shuffle: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.length <= MAX_LENGTH:
            raise ValueError(f"Order: length is {self.length}; allowed are whole numbers from 0 to 2**62")
        if self.seed < 0 or self.epoch < 0:
            raise ValueError(f"Order: seed {self.seed} and epoch {self.epoch} must not be negative")
        rows = max(1, math.isqrt(max(0, self.length - 1)) + 1)
        columns = max(1, -(-self.length // rows))
        # Six rounds leave a trace in the distance of neighbours below a few hundred samples, eight none; a
        # handful of samples needs more until every permutation is equally likely.
        rounds = 8 if self.length >= 64 else 24
        keys = tuple(np.uint64(mix(_ORDER, self.seed, self.epoch, number)) for number in range(rounds))
        object.__setattr__(self, "_sizes", (np.uint64(rows), np.uint64(columns)))
        object.__setattr__(self, "_keys", keys)

    def indices(self, start: int, stop: int) -> Indices:
        """The samples at positions `start` to `stop` (exclusive): int64 of shape [stop - start].

        Raises:
            IndexError: not 0 <= start <= stop <= length.
        """
        if not 0 <= start <= stop <= self.length:
            raise IndexError(f"Order: positions {start} to {stop} of {self.length}")
        if not self.shuffle:
            return np.arange(start, stop, dtype=np.int64)
        result = np.empty(stop - start, dtype=np.int64)
        for first in range(start, stop, _BLOCK):
            last = min(first + _BLOCK, stop)
            result[first - start : last - start] = self._permute(np.arange(first, last, dtype=np.uint64))
        return result

    def numbers(self, start: int, stop: int) -> Indices | None:
        """What seeds the samples at these positions; None for their own indices."""
        return None

    def _permute(self, values: _Words) -> _Words:
        values = self._encrypt(values)
        limit = np.uint64(self.length)
        outside = np.flatnonzero(values >= limit)
        while outside.size:  # the pairs exceed the samples by less than one row, so few walk on
            moved = self._encrypt(values[outside])
            values[outside] = moved
            outside = outside[moved >= limit]
        return values

    def _encrypt(self, values: _Words) -> _Words:
        sizes: tuple[np.uint64, np.uint64] = self._sizes  # type: ignore[attr-defined]
        keys: tuple[np.uint64, ...] = self._keys  # type: ignore[attr-defined]
        left = values // sizes[1]
        right = values - left * sizes[1]
        halves = (left, right)
        for number, key in enumerate(keys):
            side = number % 2
            half, other, size = halves[side], halves[1 - side], sizes[side]
            half += _scatter(other, key, size)
            half -= size * (half >= size)
        left *= sizes[1]
        left += right
        return left


def _scatter(values: _Words, key: np.uint64, size: np.uint64) -> _Words:
    """Hash `values` into 0 .. size - 1 under `key`; size is below 2**32."""
    words = values + key
    words *= _FIRST
    words ^= words >> _SHIFT
    words *= _SECOND
    words >>= _SHIFT
    words *= size  # the high word of a product is uniform in 0 .. size - 1 (Lemire, 2019), with no division
    words >>= _SHIFT
    return words
