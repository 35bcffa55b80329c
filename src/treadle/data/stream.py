"""Batches of a stream: samples that come one after another and have no numbers to ask for them by."""

from __future__ import annotations

import copy
import types
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch.utils.data._utils.worker as torch_worker
from torch.utils.data import IterableDataset, default_collate, get_worker_info

from treadle.data.batch import pin
from treadle.data.rows import emptied
from treadle.data.seeding import Isolated, NoSeeding, Seeding
from treadle.data.source import Batches, num_batches, share
from treadle.data.workers import WorkerPool

if TYPE_CHECKING:
    from treadle.data.loader import Loader

_READING = 2**63  # added to a position: the stream's own draws are not those of the sample's transform
_ONE_SHOT = (types.GeneratorType, map, filter, zip, enumerate, reversed)


def is_stream(dataset: Any) -> bool:
    """Whether the dataset is read in its own order: an iterable without numbers, or a function."""
    if isinstance(dataset, IterableDataset):
        return True
    kind = type(dataset)
    if hasattr(kind, "__getitem__") or isinstance(dataset, (type, set, frozenset)):
        return False
    return hasattr(kind, "__iter__") or callable(dataset)


def stream_length(dataset: Any) -> int | None:
    """The samples that a stream says it has, None if it does not say."""
    try:
        return len(dataset)
    except TypeError:
        return None


class StreamBatches(Batches):
    """A `Loader` over a stream, opened.

    A dataset with `state_dict` and `load_state_dict` goes on from its state when there are no workers;
    else what was read before is read again and dropped. Every worker reads the whole stream and makes
    every n-th batch of it, so nothing comes twice and the order is that of no workers; what a dataset does
    to shard itself by worker is switched off. `set_epoch` of the dataset is called where it has one.
    """

    aligned = True

    def __init__(self, loader: Loader, seed: int, rank: int, world_size: int, pin_memory: bool) -> None:
        self.num_samples = loader.num_samples
        self.length = None
        if self.num_samples is not None:
            self.length = num_batches(self.num_samples, loader.batch_size, loader.drop_last)
            if loader.drop_last:
                self.num_samples = self.length * loader.batch_size
        self._dataset = loader.dataset
        self._reader = Reader(loader, seed, rank, world_size)
        self._pin_memory = pin_memory
        self._pool = WorkerPool(None, loader, seed, pin_memory) if loader.workers else None
        self._has_state = self._pool is None and all(
            callable(getattr(loader.dataset, name, None)) for name in ("state_dict", "load_state_dict")
        )
        self._position: tuple[int, int] | None = None  # epoch and batches handed out
        self._ended = False  # whether the last batch handed out was the end of the stream
        self._loaded: dict[str, Any] = {}
        self._used = False

    def iterate(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """The batches of `epoch` from number `start`.

        Raises:
            ValueError: the stream can be read only once and was, it gave no samples, or it gave more or
                fewer samples than its `__len__` says.
        """
        if self._used and isinstance(self._dataset, _ONE_SHOT):
            raise ValueError(
                f"Loader: a {type(self._dataset).__name__} can be read only once, and epoch {epoch} reads it "
                "again; give a generator function or an IterableDataset"
            )
        self._used = True
        if callable(getattr(self._dataset, "set_epoch", None)):
            self._dataset.set_epoch(epoch)
        if self._pool is not None:
            return self._pool.stream(WorkerStream(self._reader, epoch, start))
        return self._read(epoch, start)

    def look(self) -> Iterator[Any]:
        """All batches of epoch 0; a dataset that has a state is put back where it was."""
        if not self._has_state:
            yield from self.iterate(0)
            return
        kept = copy.deepcopy(self._dataset.state_dict()), self._position, self._ended
        try:
            yield from self.iterate(0)
        finally:
            state, self._position, self._ended = kept
            self._dataset.load_state_dict(state)

    def state_dict(self) -> dict[str, Any]:
        """The dataset's own state and the position it belongs to, if it has one."""
        if not self._has_state or self._position is None:
            return {}
        epoch, batch = self._position
        state = copy.deepcopy(self._dataset.state_dict())
        return {"epoch": epoch, "batch": batch, "ended": self._ended, "dataset": state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The next `iterate` at the saved position goes on from the dataset's state."""
        self._loaded = state

    def close(self) -> None:
        """Stop the workers."""
        if self._pool is not None:
            self._pool.close()

    def _read(self, epoch: int, start: int) -> Iterator[Any]:
        loaded, self._loaded = self._loaded, {}
        resumed = self._has_state and (loaded.get("epoch"), loaded.get("batch")) == (epoch, start)
        if resumed and (loaded["ended"] or start == self.length):
            return  # what the dataset's state means now, the end or a new beginning, is its own affair
        if resumed:
            self._dataset.load_state_dict(loaded["dataset"])
        for number, batch, whole in self._reader.read(epoch, start, opened_at=start if resumed else 0):
            self._position, self._ended = (epoch, number + 1), not whole
            yield pin(batch) if self._pin_memory else batch
        self._ended = True  # seen only now where the last batch was a whole one


class Reader:
    """Reads a stream in chunks of a batch and makes this rank's share of those that are wanted."""

    def __init__(self, loader: Loader, seed: int, rank: int, world_size: int) -> None:
        self._dataset = loader.dataset
        self._open: Callable[[], Iterator[Any]] = _opener(loader.dataset)
        self._said = loader.num_samples
        self._batch_size = loader.batch_size
        self._drop_last = loader.drop_last
        self._rank, self._world_size = rank, world_size
        self._transform = loader.transform
        self._collate = default_collate if loader.collate is None else loader.collate
        # Workers that drew differently would read different streams, so there they are always seeded.
        self._seeding = Seeding(seed) if loader.seed_samples or loader.workers else NoSeeding(seed)

    def read(
        self, epoch: int, start: int, opened_at: int = 0, worker: int = 0, workers: int = 1
    ) -> Iterator[tuple[int, Any, bool]]:
        """Batch number, batch, and whether it is a whole one, from number `start`, every `workers`-th.

        Args:
            epoch: the epoch, for seeding.
            start: the first batch wanted.
            opened_at: the batch at which the dataset begins to give samples.
            worker: which of every `workers` batches to make.
            workers: how many share the making.
        """
        number, size = opened_at, self._batch_size
        with self._seeding.around_batch():
            self._seeding.start_sample(epoch, _READING - 1)
            iterator = self._open()
        while True:
            wanted = number >= start and (number - start) % workers == worker
            around = self._seeding.around_batch() if number >= start else Isolated()
            with around:
                samples = self._chunk(iterator, epoch, number * size)
                whole = len(samples) == size
                batch = self._make(samples, epoch, number * size) if wanted and samples else None
            self._check_count(number * size + len(samples), ended=not whole, epoch=epoch)
            if wanted and samples and (whole or not self._drop_last):
                yield number, batch, whole
            if not whole:
                return
            number += 1

    def _chunk(self, iterator: Iterator[Any], epoch: int, first: int) -> list[Any]:
        samples: list[Any] = []
        for position in range(first, first + self._batch_size):
            self._seeding.start_sample(epoch, _READING + position)
            try:
                samples.append(next(iterator))
            except StopIteration:
                break
            except Exception as error:
                error.add_note(f"treadle: while reading sample {position} of a stream in epoch {epoch}")
                raise
        return samples

    def _make(self, samples: list[Any], epoch: int, first: int) -> Any:
        lower, upper = share(0, len(samples), self._rank, self._world_size)
        if lower == upper:
            return emptied(self._collate(self._transformed(samples[:1], epoch, first)))
        return self._collate(self._transformed(samples[lower:upper], epoch, first + lower))

    def _transformed(self, samples: list[Any], epoch: int, first: int) -> list[Any]:
        if self._transform is None:
            return samples
        results = []
        for position, sample in enumerate(samples, first):
            self._seeding.start_sample(epoch, position)
            try:
                results.append(self._transform(sample))
            except Exception as error:
                error.add_note(f"treadle: while transforming sample {position} of a stream in epoch {epoch}")
                raise
        return results

    def _check_count(self, count: int, ended: bool, epoch: int) -> None:
        kind = type(self._dataset).__name__
        if ended and count == 0:
            raise ValueError(
                f"Loader: the stream ({kind}) gave no samples in epoch {epoch}; a stream that can be read "
                "only once is used up"
            )
        if self._said is not None and (count > self._said or (ended and count < self._said)):
            gave = f"ended after {count}" if ended else f"gave at least {count}"
            raise ValueError(f"Loader: the stream ({kind}) says it has {self._said} samples but {gave}")


class WorkerStream(IterableDataset[Any]):
    """A reader inside a worker process."""

    def __init__(self, reader: Reader, epoch: int, start: int) -> None:
        self._reader, self._epoch, self._start = reader, epoch, start

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        assert info is not None
        # The dataset must give the whole stream here; one that shards itself by worker asks for this.
        torch_worker._worker_info = None
        read = self._reader.read(self._epoch, self._start, worker=info.id, workers=info.num_workers)
        return (batch for _, batch, _ in read)


def _opener(dataset: Any) -> Callable[[], Iterator[Any]]:
    if hasattr(type(dataset), "__iter__"):
        return dataset.__iter__  # type: ignore[no-any-return]
    return lambda: iter(dataset())
