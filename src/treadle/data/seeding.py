"""Seeding what is random about one sample, without touching the generators that training draws from."""

from __future__ import annotations

import random
from types import TracebackType

import numpy as np
import torch

from treadle.data.order import sample_seed


def seed_host(seed: int) -> None:
    """Seed Python's, NumPy's and torch's CPU generators from one of 0 .. 2**64 - 1.

    Devices are left alone: samples are made on the host, and seeding every device costs five times as much.
    """
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    torch.default_generator.manual_seed(seed)


class Isolated:
    """A block after which the host's generators stand where they stood before it (about 0.1 ms).

    Where `treadle.rng.isolated` makes plain data that can be saved, this keeps the generators' own
    representation, which is several times faster: it runs once a batch.
    """

    def __enter__(self) -> None:
        self._python = random.getstate()
        self._numpy = np.random.get_state(legacy=False)
        self._torch = torch.default_generator.get_state()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        torch.default_generator.set_state(self._torch)


class Seeding:
    """Per-sample seeding: the base class seeds from (seed, epoch, index) and isolates around a batch."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def around_batch(self) -> Isolated:
        """What a batch is made inside of."""
        return Isolated()

    def start_sample(self, epoch: int, index: int) -> None:
        """Called right before sample `index` is made."""
        seed_host(sample_seed(self.seed, epoch, index))


class NoSeeding(Seeding):
    """Samples draw from the global generators, as in a plain loop."""

    def around_batch(self) -> Isolated:
        """Nothing is put back."""
        return _Open()

    def start_sample(self, epoch: int, index: int) -> None:
        """Nothing is seeded."""


class _Open(Isolated):
    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass
