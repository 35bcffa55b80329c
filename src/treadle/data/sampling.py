"""Orders other than a shuffle, as pure functions of (seed, epoch, position): by weight, and by length."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from treadle.data.order import Indices, Order, mix

Numbers = NDArray[np.float64]

_DRAW, _GROUP = 0x64726177, 0x67726F7570  # keep the uses of one seed apart
_GAMMA, _FIRST, _SECOND = (
    np.uint64(number) for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
_MOST_BATCHES = 50  # that are sorted by length together


def numbers_of(given: Any, samples: int, name: str) -> Numbers:
    """One finite number from 0 a sample: float64 of shape [samples], read-only.

    Args:
        given: a tensor, an array or a sequence.
        samples: how many there must be.
        name: of the Loader's argument.

    Raises:
        TypeError: they are no numbers.
        ValueError: there are more or fewer than samples, or one is negative or not finite.
    """
    try:
        plain = given.detach().cpu().double().numpy() if isinstance(given, Tensor) else given
        numbers = np.array(plain, dtype=np.float64)
    except (TypeError, ValueError):
        allowed = "a tensor, array or list of one number a sample"
        raise TypeError(f"Loader: {name} is a {type(given).__name__}; allowed are {allowed}") from None
    if numbers.shape != (samples,):
        raise ValueError(
            f"Loader: {name} has shape {numbers.shape}; the dataset needs one a sample, ({samples},)"
        )
    wrong = np.flatnonzero(~(np.isfinite(numbers) & (numbers >= 0)))
    if wrong.size:
        value = numbers[wrong[0]]
        raise ValueError(
            f"Loader: {name} has {value} for sample {wrong[0]}; allowed are finite numbers from 0"
        )
    numbers.flags.writeable = False
    return numbers


def weights_of(given: Any, samples: int) -> Numbers:
    """Weights as `numbers_of` gives them.

    Raises:
        TypeError, ValueError: see `numbers_of`; besides, their sum must be finite and above 0.
    """
    weights = numbers_of(given, samples, "weights")
    with np.errstate(over="ignore"):
        total = weights.sum()
    if not 0 < total < np.inf:
        raise ValueError(f"Loader: the weights add up to {total}; that must be finite and above 0")
    return weights


def fingerprint_of(numbers: Numbers | None) -> str | None:
    """What tells numbers from others in a record: how many there are, and a checksum."""
    return None if numbers is None else f"{len(numbers)} numbers, CRC-32 {zlib.crc32(numbers.tobytes()):08x}"


class Draws:
    """What an epoch draws: each position independently, sample i with probability weights[i] / sum.

    Position p takes the p-th number of a SplitMix64 stream (Steele et al., 2014) that (seed, epoch) begin,
    and the sample in whose part of the cumulative weights it falls. So any position is computed on its own.

    Args:
        cumulative: the cumulative sums of the weights, float64 of shape [samples].
        seed: of the run.
        epoch: from 0.
    """

    def __init__(self, cumulative: Numbers, seed: int, epoch: int) -> None:
        self._cumulative = cumulative
        self._key = np.uint64(mix(_DRAW, seed, epoch))

    def indices(self, start: int, stop: int) -> Indices:
        """The samples at positions `start` to `stop` (exclusive): int64 of shape [stop - start]."""
        words = np.arange(start + 1, stop + 1, dtype=np.uint64)
        words *= _GAMMA
        words += self._key
        words ^= words >> np.uint64(30)
        words *= _FIRST
        words ^= words >> np.uint64(27)
        words *= _SECOND
        words ^= words >> np.uint64(31)
        uniform = (words >> np.uint64(11)) * 2.0**-53  # in [0, 1)
        uniform *= self._cumulative[-1]
        return np.searchsorted(self._cumulative, uniform, side="right").astype(np.int64, copy=False)

    def numbers(self, start: int, stop: int) -> Indices | None:
        """What seeds the samples: the positions, for a sample that is drawn twice shall not look the same."""
        return np.arange(start, stop)


class Grouped:
    """A shuffle whose batches hold samples of similar length, so that padding them adds little.

    The shuffled samples are taken by up to 50 batches (a quarter of the epoch at most), sorted by length
    there, cut into batches, and the batches shuffled: as in Hugging Face's `group_by_length`, but any such
    block is computed on its own. What no whole batch is left for ends the epoch as it comes, so nothing
    depends on length in which samples `drop_last` leaves out.

    Args:
        lengths: of every sample, shape [samples].
        batch_size: samples in a batch.
        seed: of the run.
        epoch: from 0.
    """

    def __init__(self, lengths: Numbers, batch_size: int, seed: int, epoch: int) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed, self._epoch = seed, epoch
        self._order = Order(len(lengths), seed, epoch)
        batches = len(lengths) // batch_size
        self._whole = batches * batch_size  # positions of whole batches
        self._size = batch_size * min(_MOST_BATCHES, max(1, batches // 4))  # positions of a block

    def indices(self, start: int, stop: int) -> Indices:
        """The samples at positions `start` to `stop` (exclusive): int64 of shape [stop - start]."""
        first = start - start % self._size
        blocks = [self._block(begin) for begin in range(first, min(stop, self._whole), self._size)]
        blocks.append(self._order.indices(max(first, self._whole), max(stop, self._whole, first)))
        return np.concatenate(blocks)[start - first : stop - first]

    def numbers(self, start: int, stop: int) -> Indices | None:
        """What seeds the samples at these positions: their own indices."""
        return None

    def _block(self, begin: int) -> Indices:
        samples = self._order.indices(begin, min(begin + self._size, self._whole))
        samples = samples[np.argsort(self._lengths[samples], kind="stable")]
        batches = samples.reshape(-1, self._batch_size)
        places = Order(len(batches), mix(_GROUP, self._seed, begin), self._epoch)
        return batches[places.indices(0, len(batches))].ravel()
