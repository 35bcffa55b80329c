"""What data are to the loops: a `Source` describes them, `Batches` are a source opened for one run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from treadle.data.order import Indices
from treadle.described import name_of


def num_batches(samples: int, batch_size: int, drop_last: bool = False) -> int:
    """How many batches `samples` samples make: the last one may be short, or is left out with `drop_last`."""
    return samples // batch_size if drop_last else -(-samples // batch_size)


def share(start: int, stop: int, rank: int, world_size: int) -> tuple[int, int]:
    """The contiguous part of positions `start` to `stop` that is `rank`'s; sizes differ by at most one."""
    size = stop - start
    return start + size * rank // world_size, start + size * (rank + 1) // world_size


class Batches:
    """The batches of one run on one rank, epoch after epoch. Base class: a list of ready batches.

    Attributes:
        length: batches in an epoch, None where only reading tells.
        num_samples: samples in an epoch over all ranks, None where only reading tells.
        aligned: whether every rank has a batch, an empty one perhaps, wherever another rank has one.
    """

    aligned: bool = False
    length: int | None
    num_samples: int | None = None

    def __init__(self, batches: list[Any]) -> None:
        self._batches = batches
        self.length = len(batches)

    def iterate(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """The batches of `epoch` (from 0), beginning with number `start`."""
        yield from self._batches[start:]

    def look(self) -> Iterator[Any]:
        """All batches, once, to evaluate or predict on: leaves no trace in anything that training reads."""
        return self.iterate(0)

    def state_dict(self) -> dict[str, Any]:
        """What (epoch, batch) alone do not say, as of the last batch handed out: plain data and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""

    def indices(self, epoch: int, batch: int) -> Indices | None:
        """The samples of a batch on this rank, int64 of shape [items]; None where they have no numbers."""
        return None

    def close(self) -> None:
        """Stop workers. Further iterating starts them again."""


class Source:
    """Something to open and read batches from. Base class: ready batches, the same in every epoch."""

    def __init__(self, batches: list[Any]) -> None:
        self._batches = batches

    def in_order(self) -> Source:
        """The same data to be looked at: every sample, in data order, where the source can give that."""
        return self

    def settings(self) -> dict[str, Any]:
        """What the record says of these data, as plain data: their class, sizes and order."""
        return {"class": name_of(self)}

    def open(self, seed: int, rank: int = 0, world_size: int = 1, pin_memory: bool = False) -> Batches:
        """Open for one run on one rank.

        Args:
            seed: what the order and the augmentation follow from, unless the source has its own.
            rank: the number of this process among `world_size`, from 0.
            world_size: how many processes share every batch.
            pin_memory: whether batches lie in pinned memory, for copying them to a device.
        """
        return Batches(self._batches[rank::world_size])
