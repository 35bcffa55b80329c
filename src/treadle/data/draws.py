"""Samples drawn by weight, with replacement: a pure function of (seed, epoch, position) too."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from treadle.data.order import Indices, mix

Weights = NDArray[np.float64]

_DRAW = 0x64726177  # keeps this use of a seed apart from the others
_GAMMA = 0x9E3779B97F4A7C15


def weights_of(given: Any, samples: int, where: str) -> Weights:
    """One weight a sample, float64 of shape [samples], read-only.

    Raises:
        TypeError: they are no numbers.
        ValueError: there are more or fewer than samples, one is negative or not finite, or all are zero.
    """
    try:
        plain = given.detach().cpu().double().numpy() if isinstance(given, Tensor) else given
        weights = np.array(plain, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(
            f"{where}: weights is a {type(given).__name__}; allowed are a tensor, array or list of one number "
            "a sample"
        ) from None
    if weights.shape != (samples,):
        raise ValueError(
            f"{where}: weights has shape {weights.shape}; the dataset needs one a sample, ({samples},)"
        )
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if wrong.size:
        raise ValueError(
            f"{where}: the weight of sample {wrong[0]} is {weights[wrong[0]]}; allowed are finite numbers from 0"
        )
    with np.errstate(over="ignore"):
        total = weights.sum()
    if not 0 < total < np.inf:
        raise ValueError(f"{where}: the weights add up to {total}; that must be finite and above 0")
    weights.flags.writeable = False
    return weights


class Draws:
    """What an epoch draws: each position independently, sample i with probability weights[i] / sum.

    Position p takes the p-th number of a SplitMix64 stream (Steele et al., 2014) that (seed, epoch) begin,
    and the sample in whose part of the cumulative weights it falls. So any position is computed on its own.

    Args:
        cumulative: the cumulative sums of the weights, float64 of shape [samples].
        seed: of the run.
        epoch: from 0.
    """

    def __init__(self, cumulative: Weights, seed: int, epoch: int) -> None:
        self._cumulative = cumulative
        self._key = np.uint64(mix(_DRAW, seed, epoch))

    def indices(self, start: int, stop: int) -> Indices:
        """The samples at positions `start` to `stop` (exclusive): int64 of shape [stop - start]."""
        words = np.arange(start + 1, stop + 1, dtype=np.uint64)
        words *= np.uint64(_GAMMA)
        words += self._key
        words ^= words >> np.uint64(30)
        words *= np.uint64(0xBF58476D1CE4E5B9)
        words ^= words >> np.uint64(27)
        words *= np.uint64(0x94D049BB133111EB)
        words ^= words >> np.uint64(31)
        uniform = (words >> np.uint64(11)) * 2.0**-53  # in [0, 1)
        uniform *= self._cumulative[-1]
        return np.searchsorted(self._cumulative, uniform, side="right").astype(np.int64, copy=False)

    def numbers(self, start: int, stop: int) -> Indices:
        """What seeds the samples: the positions, for a sample that is drawn twice shall not look the same."""
        return np.arange(start, stop)
