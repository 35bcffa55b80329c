"""A plain torch DataLoader, taken as it is."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import islice
from typing import Any
from weakref import WeakSet

import torch
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, IterableDataset

from treadle import rng
from treadle.data.source import Batches, Source
from treadle.data.whole import whole_batches
from treadle.described import described, name_of


class GivenLoader(Source):
    """The batches of a torch DataLoader exactly as a plain loop sees them, drawing what it draws.

    The batch size is that of one process, as is conventional; a distributed sampler is the caller's.
    `set_epoch` of the sampler, batch sampler and dataset is called where there is one. Where the data lie in
    memory and torch's own collate function joins them, whole batches are gathered instead, the same to the
    bit; see `whole_batches`.

    Raises:
        TypeError: `loader` is no DataLoader.
        ValueError: it has no batches.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        if not isinstance(loader, DataLoader):
            raise TypeError(f"GivenLoader: {type(loader).__name__} is not a torch DataLoader")
        if _length(loader) == 0:
            raise ValueError(
                "GivenLoader: the DataLoader has no batches; its dataset is empty or drop_last drops all"
            )
        self.loader = loader

    def in_order(self) -> Source:
        """The same batches; ranks take turns at them, unless the sampler deals samples out itself."""
        return self if isinstance(self.loader.sampler, DistributedSampler) else InTurns(self.loader)

    def settings(self) -> dict[str, Any]:
        """What the record says of these data; see `Source.settings`."""
        loader = self.loader
        return {
            "class": name_of(loader),
            "dataset": name_of(type(loader.dataset)),
            "samples": _count(loader.dataset),
            "batch_size": loader.batch_size,
            "sampler": name_of(loader.sampler),
            "batch_sampler": name_of(loader.batch_sampler),
            "drop_last": loader.drop_last,
            "collate": described(loader.collate_fn),
            "workers": loader.num_workers,
        }

    def open(self, seed: int, rank: int = 0, world_size: int = 1, pin_memory: bool = False) -> Batches:
        """The DataLoader's batches; `seed` and `pin_memory` are its own affair."""
        return GivenBatches(self.loader, world_size)


class InTurns(GivenLoader):
    """A given DataLoader to be looked at: batch number b is rank b modulo the number of ranks'."""

    def open(self, seed: int, rank: int = 0, world_size: int = 1, pin_memory: bool = False) -> Batches:
        """This rank's batches."""
        return (
            GivenBatches(self.loader, 1)
            if world_size == 1
            else TurnBatches(self.loader, seed, rank, world_size)
        )


class GivenBatches(Batches):
    """A given DataLoader, opened.

    To enter an epoch in its midst, the generators are put where they stood when it began, the batches
    before are read and dropped, and the global generators are put back. This is exact for any number of
    workers where a sampler draws its order as the epoch begins, as torch's do. Workers that persist
    between epochs keep generators nobody can save: augmentation in them is not resumed exactly.
    """

    def __init__(self, loader: DataLoader[Any], world_size: int) -> None:
        self._loader = loader
        self._whole = whole_batches(loader)
        self.length = _length(loader)
        self.num_samples = _samples(loader, world_size)
        self._generators = _generators(loader)
        self._snapshot: dict[str, Any] = {}
        self._reading: WeakSet[Generator[Any]] = WeakSet()

    def iterate(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """The batches of `epoch` from number `start`.

        Raises:
            ValueError: `start` is not 0 and the epoch's beginning was neither seen nor loaded.
        """
        return self._noted(self._read(epoch, start))

    def look(self) -> Iterator[Any]:
        """All batches in the DataLoader's own order; its generators are put back afterwards."""
        return self._noted(self._read_aside())

    def close(self) -> None:
        """Leave what is being read, as a loop is left: workers that do not persist end with it."""
        for reading in list(self._reading):
            reading.close()

    def _noted(self, reading: Generator[Any]) -> Iterator[Any]:
        self._reading.add(reading)
        return reading

    def _read(self, epoch: int, start: int) -> Generator[Any]:
        parts = (self._loader.sampler, self._loader.batch_sampler, self._loader.dataset)
        for part in parts:
            set_epoch = getattr(part, "set_epoch", None)
            if callable(set_epoch):
                set_epoch(epoch)
        if start == 0:
            self._snapshot = {"epoch": epoch, "global": rng.capture(), "own": self._own()}
            yield from self._whole
            return
        if self._snapshot.get("epoch") != epoch:
            raise ValueError(
                f"GivenLoader: cannot enter epoch {epoch} at batch {start}: where its generators stood when "
                "it began is not known; the checkpoint has no state of this DataLoader"
            )
        present = rng.capture()
        try:
            rng.restore(self._snapshot["global"])
            self._set_own(self._snapshot["own"])
            iterator = iter(self._whole)
            for _ in range(start):
                next(iterator, None)
        finally:
            rng.restore(present)
        yield from iterator

    def _read_aside(self) -> Generator[Any]:
        own = self._own()
        try:
            yield from self._whole
        finally:
            self._set_own(own)

    def state_dict(self) -> dict[str, Any]:
        """Where the generators stood as the epoch began, and where the DataLoader's own stand now."""
        return {**self._snapshot, "now": self._own()} if self._snapshot else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the DataLoader's own generators where they stood and remember how the epoch began."""
        if state:
            self._snapshot = {name: state[name] for name in ("epoch", "global", "own")}
            self._set_own(state["now"])

    def _own(self) -> dict[str, torch.Tensor]:
        return {name: generator.get_state() for name, generator in self._generators.items()}

    def _set_own(self, states: dict[str, torch.Tensor]) -> None:
        for name, generator in self._generators.items():
            if name in states:
                generator.set_state(states[name])


class TurnBatches(GivenBatches):
    """Every so manieth batch of a given DataLoader, to be looked at."""

    def __init__(self, loader: DataLoader[Any], seed: int, rank: int, world_size: int) -> None:
        super().__init__(loader, 1)
        self._seed, self._rank, self._world_size = seed, rank, world_size
        if self.length is not None:
            self.length = len(range(rank, self.length, world_size))

    def look(self) -> Iterator[Any]:
        """This rank's batches; a DataLoader that shuffles does so alike on every rank."""
        own = self._own()
        try:
            with rng.isolated():
                rng.seed_all(self._seed)
                iterator = super().look()
                first = next(iterator, None)
            if self._rank == 0 and first is not None:
                yield first
            # The first batch is taken already.
            yield from islice(iterator, (self._rank - 1) % self._world_size, None, self._world_size)
        finally:
            self._set_own(own)


def _generators(loader: DataLoader[Any]) -> dict[str, torch.Generator]:
    """The generators that the DataLoader's parts draw from, each once, by the part it was first found at."""
    inner = getattr(loader.batch_sampler, "sampler", None)
    parts = {
        "loader": loader,
        "sampler": loader.sampler,
        "batch_sampler": loader.batch_sampler,
        "batch_sampler.sampler": inner,
        "dataset": loader.dataset,
    }
    found: dict[str, torch.Generator] = {}
    for name, part in parts.items():
        generator = getattr(part, "generator", None)
        if isinstance(generator, torch.Generator) and all(generator is not other for other in found.values()):
            found[name] = generator
    return found


def _length(loader: DataLoader[Any]) -> int | None:
    # Each worker of a stream may end on a short batch of its own, which len(loader) does not count.
    if isinstance(loader.dataset, IterableDataset) and loader.num_workers > 0:
        return None
    try:
        return len(loader)
    except (TypeError, NotImplementedError):
        return None


def _count(dataset: Any) -> int | None:
    try:
        return len(dataset)
    except (TypeError, NotImplementedError):
        return None


def _samples(loader: DataLoader[Any], world_size: int) -> int | None:
    cutter = loader.batch_sampler  # other classes may make batches of any size
    if (
        _length(loader) is None
        or type(cutter) is not BatchSampler
        or isinstance(loader.dataset, IterableDataset)
    ):
        return None
    try:
        samples = len(cutter.sampler)  # type: ignore[arg-type]
    except TypeError:
        return None
    return min(samples, len(cutter) * cutter.batch_size) * world_size
