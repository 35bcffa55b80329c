"""Batches of samples that have numbers: any batch of any epoch is computed on its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from treadle.data.adapt import rows_of
from treadle.data.batch import pin
from treadle.data.order import Indices, Order, mix
from treadle.data.sampling import Draws, Grouped
from treadle.data.seeding import seed_host
from treadle.data.source import Batches, num_batches, share
from treadle.data.workers import WorkerPool

if TYPE_CHECKING:
    from treadle.data.loader import Loader

_BLOCK = 2**14  # positions whose order is computed at once


class IndexedBatches(Batches):
    """A `Loader` over numbered samples, opened. Nothing needs saving: (epoch, batch) say it all."""

    aligned = True
    length: int
    num_samples: int

    def __init__(self, loader: Loader, seed: int, rank: int, world_size: int, pin_memory: bool) -> None:
        samples = loader.num_samples  # of an epoch
        assert samples is not None
        self.length = num_batches(samples, loader.batch_size, loader.drop_last)
        self.num_samples = min(samples, self.length * loader.batch_size)
        self._plan = Plan(loader, samples, seed, rank, world_size)
        self._pin_memory = pin_memory
        self._pool = WorkerPool(self._plan, loader, seed, pin_memory) if loader.workers else None

    def iterate(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """The batches of `epoch` from number `start`; no sample before it is touched."""
        _check_position(epoch, start, self.length)
        if self._pool is not None:
            return self._pool.iterate([(epoch, batch) for batch in range(start, self.length)])
        batches = self._plan.make_all(epoch, start, self.length)
        return map(pin, batches) if self._pin_memory else batches

    def indices(self, epoch: int, batch: int) -> Indices:
        """The samples of a batch on this rank, in order: int64 of shape [items]."""
        _check_position(epoch, batch, self.length - 1)
        return self._plan.indices(epoch, batch)

    def close(self) -> None:
        """Stop the workers."""
        if self._pool is not None:
            self._pool.close()


class Plan:
    """Which samples make which batch, and how; what a worker gets. `plan[epoch, batch]` is a batch.

    Attributes:
        order: gives the order of an epoch.
    """

    def __init__(self, loader: Loader, samples: int, seed: int, rank: int, world_size: int) -> None:
        self._samples = samples
        self._batch_size = loader.batch_size
        self._seed = seed
        self._rank, self._world_size = rank, world_size
        self._seed_samples = loader.seed_samples
        self._in_data_order = not loader.shuffle and loader.weights is None
        self.order: Callable[[int], Order | Draws | Grouped]
        if loader.weights is not None:
            self.order = partial(Draws, loader.weights.cumsum(), seed)
        elif loader.lengths is not None:
            self.order = partial(Grouped, loader.lengths, loader.batch_size, seed)
        else:
            self.order = partial(Order, samples, seed, shuffle=loader.shuffle)
        self._rows = rows_of(
            loader.dataset,
            seed=seed,
            seed_samples=loader.seed_samples,
            transform=loader.transform,
            collate=loader.collate,
            where="Loader",
        )

    def positions(self, batch: int) -> tuple[int, int]:
        """The first and the last (exclusive) position of a batch on this rank."""
        start = batch * self._batch_size
        return share(start, min(start + self._batch_size, self._samples), self._rank, self._world_size)

    def indices(self, epoch: int, batch: int) -> Indices:
        """The samples of a batch."""
        return self.order(epoch).indices(*self.positions(batch))

    def make_all(self, epoch: int, start: int, stop: int) -> Iterator[Any]:
        """Batches `start` to `stop`."""
        if not self._in_data_order:
            return self._make_ordered(epoch, start, stop)
        size = self._batch_size
        firsts = range(start * size, stop * size, size)
        lasts = chain(firsts[1:], (min(stop * size, self._samples),))
        bounds: Iterable[tuple[int, int]] = zip(firsts, lasts, strict=False)
        if self._world_size > 1:
            bounds = (share(*pair, self._rank, self._world_size) for pair in bounds)
        return self._rows.runs(bounds, epoch)

    def _make_ordered(self, epoch: int, start: int, stop: int) -> Iterator[Any]:
        """The same where there is an order to compute, which is done in blocks."""
        order, gather = self.order(epoch), self._rows.gather
        step = max(1, _BLOCK // self._batch_size)
        for first in range(start, stop, step):
            bounds = [self.positions(batch) for batch in range(first, min(first + step, stop))]
            offset = bounds[0][0]
            block = order.indices(offset, bounds[-1][1])
            for lower, upper in bounds:
                yield gather(block[lower - offset : upper - offset], epoch, order.numbers(lower, upper))

    def __getitem__(self, key: tuple[int, int]) -> Any:
        """Make one batch, in a worker."""
        epoch, batch = key
        if not self._seed_samples:  # nobody can know what a worker drew before; a batch must not depend on it
            seed_host(mix(self._seed, epoch, batch))
        order, bounds = self.order(epoch), self.positions(batch)
        return self._rows.gather(order.indices(*bounds), epoch, order.numbers(*bounds))


def _check_position(epoch: int, batch: int, most: int) -> None:
    if epoch < 0:
        raise ValueError(f"Loader: epoch is {epoch}; allowed are whole numbers from 0")
    if not 0 <= batch <= most:
        raise ValueError(f"Loader: batch is {batch}; allowed are 0 to {most}")
