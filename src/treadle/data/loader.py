"""Resumable batches of a dataset, in an order that is a pure function of (seed, epoch, position)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from treadle.data.adapt import check_list, rows_of
from treadle.data.indexed import IndexedBatches
from treadle.data.rows import Collate, Transform
from treadle.data.sampling import fingerprint_of, numbers_of, weights_of
from treadle.data.source import Batches, Source, num_batches
from treadle.data.stream import StreamBatches, is_stream, stream_length
from treadle.described import described, name_of


class Loader(Source):
    """Batches of `batch_size` samples over all ranks. Immutable: `replace` makes another.

    A dataset with numbered samples (a tensor or array whose rows they are, a tuple or dictionary of such
    columns, a list of samples, a TensorDataset, Hugging Face datasets, anything with `__len__` and
    `__getitem__` or `__getitems__`) is entered at any batch in constant time. A stream (an IterableDataset,
    anything re-iterable, a generator function) goes on from its own `state_dict`, or by skipping what was
    read. Batch number b holds positions b * batch_size to (b + 1) * batch_size of the epoch's order, cut
    into contiguous shares for the ranks; a rank without a share gets a batch of no items (None if the
    batches hold no tensors).

    Random augmentation is seeded for each sample from (seed, epoch, index), so neither workers nor ranks
    nor resumes change it, and the generators that training draws from stay where they are.

    Args:
        dataset: the samples. In-memory data are gathered a whole batch at a time and need no workers.
        batch_size: samples in a batch, over all ranks.
        shuffle: visit the samples in another order each epoch; not for streams.
        seed: the seed of order and augmentation; None takes the trainer's.
        drop_last: leave out a last batch that is short.
        workers: processes that make batches; 0 makes them where the loop runs. Both give the same batches.
        collate: makes a batch of a list of samples; torch's `default_collate` where it is None.
        transform: applied to each sample before collating; data in memory are then read sample by sample.
        seed_samples: seed Python's, NumPy's and torch's generators before each sample (about 15
            microseconds). Without it samples draw from the global generators as in a plain loop, and
            workers are seeded once a batch.
        prefetch: batches each worker keeps ready.
        weights: one number a sample, from 0, to draw the samples of an epoch by, with replacement, each with
            the probability weight / sum of weights; in an order that is random with or without `shuffle`.
            Augmentation then follows from (seed, epoch, position). Looked at in order, for evaluation,
            the data are all there, once.
        samples: how many an epoch draws by `weights`; None for as many as there are.
        lengths: one number a sample; with `shuffle`, batches then hold samples of similar length. Their order
            and most of their company are random still.

    Raises:
        TypeError: an argument has a wrong type, or `dataset` is no dataset.
        ValueError: a number is out of range, there are no samples, or the arguments do not fit together.
    """

    dataset: Any
    batch_size: int
    shuffle: bool
    seed: int | None
    drop_last: bool
    workers: int
    collate: Collate | None
    transform: Transform | None
    seed_samples: bool
    prefetch: int
    weights: Any
    samples: int | None
    lengths: Any

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        shuffle: bool = False,
        seed: int | None = None,
        drop_last: bool = False,
        workers: int = 0,
        collate: Callable[[list[Any]], Any] | None = None,
        transform: Callable[[Any], Any] | None = None,
        seed_samples: bool = True,
        prefetch: int = 2,
        weights: Any = None,
        samples: int | None = None,
        lengths: Any = None,
    ) -> None:
        _check_whole("batch_size", batch_size, 1)
        _check_whole("workers", workers, 0)
        _check_whole("prefetch", prefetch, 1)
        if samples is not None:
            _check_whole("samples", samples, 1)
        if seed is not None:
            _check_whole("seed", seed, 0, 2**32 - 1)
        for name, flag in (("shuffle", shuffle), ("drop_last", drop_last), ("seed_samples", seed_samples)):
            if not isinstance(flag, bool):
                raise TypeError(f"Loader: {name} is {flag!r}; allowed are True and False")
        for name, function in (("collate", collate), ("transform", transform)):
            if function is not None and not callable(function):
                raise TypeError(f"Loader: {name} is {function!r}; allowed are a function and None")
        if isinstance(dataset, (Source, DataLoader)):
            kind = type(dataset).__name__
            raise TypeError(f"Loader: dataset is a {kind}, which makes batches already; use it as it is")
        vars(self).update(
            dataset=dataset,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
            workers=workers,
            collate=collate,
            transform=transform,
            seed_samples=seed_samples,
            prefetch=prefetch,
            weights=weights,
            samples=samples,
            lengths=lengths,
            is_stream=is_stream(dataset),
        )
        length = self._checked_length()
        if weights is not None:
            vars(self)["weights"] = weights_of(weights, self._numbered(length, "weights"))
            length = length if samples is None else samples
        elif samples is not None:
            raise ValueError(f"Loader: samples is {samples}, but there are no weights to draw them by")
        if lengths is not None:
            if not shuffle or weights is not None:
                other = "shuffle is False" if weights is None else "weights are given"
                raise ValueError(f"Loader: lengths group what is shuffled, but {other}")
            vars(self)["lengths"] = numbers_of(lengths, self._numbered(length, "lengths"), "lengths")
        if length is not None and drop_last and length < batch_size:
            raise ValueError(
                f"Loader: drop_last leaves no batch of {length} samples with batch_size {batch_size}"
            )
        vars(self)["num_samples"] = length

    num_samples: int | None
    is_stream: bool

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a Loader is immutable; make another: loader.replace({name}={value!r})")

    def replace(self, **changes: Any) -> Loader:
        """A loader with some arguments changed."""
        names = (*Loader.__annotations__,)[:13]
        return Loader(**{**{name: getattr(self, name) for name in names}, **changes})

    def in_order(self) -> Loader:
        """The same loader without shuffling or drawing, and without dropping a short last batch."""
        if not (self.shuffle or self.drop_last or self.weights is not None):
            return self
        return self.replace(shuffle=False, drop_last=False, weights=None, samples=None, lengths=None)

    def settings(self) -> dict[str, Any]:
        """What the record says of these data; see `Source.settings`."""
        order = ("batch_size", "shuffle", "seed", "drop_last")
        making = ("collate", "transform", "seed_samples", "workers")
        return {
            **super().settings(),
            "dataset": name_of(type(self.dataset)),
            "samples": self.num_samples,
            **{name: described(getattr(self, name)) for name in (*order, *making)},
            **{name: fingerprint_of(getattr(self, name)) for name in ("weights", "lengths")},
        }

    def open(self, seed: int, rank: int = 0, world_size: int = 1, pin_memory: bool = False) -> Batches:
        """The batches of one run on one rank; `seed` counts where the loader has none of its own."""
        seed = seed if self.seed is None else self.seed
        if not 0 <= rank < world_size:
            raise ValueError(f"Loader.open: rank is {rank}; allowed are 0 to {world_size - 1}")
        kind: type[IndexedBatches | StreamBatches] = StreamBatches if self.is_stream else IndexedBatches
        return kind(self, seed, rank, world_size, pin_memory and torch.accelerator.is_available())

    def __iter__(self) -> Iterator[Any]:
        """The batches of the first epoch, on one rank."""
        batches = self.open(0)
        try:
            yield from batches.iterate(0)
        finally:
            batches.close()

    def __len__(self) -> int:
        """Batches in an epoch.

        Raises:
            TypeError: the dataset is a stream without a length.
        """
        if self.num_samples is None:
            raise TypeError(f"Loader: a stream of type {type(self.dataset).__name__} has no length")
        return num_batches(self.num_samples, self.batch_size, self.drop_last)

    def __repr__(self) -> str:
        kind = type(self.dataset).__name__
        return f"Loader({kind} of {self.num_samples}, batch_size={self.batch_size}, shuffle={self.shuffle})"

    def _numbered(self, length: int | None, name: str) -> int:
        if length is None or self.is_stream:
            raise ValueError(f"Loader: {name} is given, but the samples of a stream have no numbers")
        return length

    def _checked_length(self) -> int | None:
        if self.is_stream:
            if self.shuffle:
                raise ValueError(
                    "Loader: a stream has no order to shuffle; shuffle inside the dataset instead"
                )
            length = stream_length(self.dataset)
        else:
            if self.transform is None and self.collate is None:
                check_list(self.dataset, "Loader")
            length = len(
                rows_of(self.dataset, transform=self.transform, collate=self.collate, where="Loader")
            )
        if length is not None and length < 1:
            raise ValueError(f"Loader: the dataset ({type(self.dataset).__name__}) has {length} samples")
        return length


def _check_whole(name: str, value: Any, least: int, most: int | None = None) -> None:
    limits = f"from {least}" if most is None else f"from {least} to {most}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(
            f"Loader: {name} is {value!r} ({type(value).__name__}); allowed are whole numbers {limits}"
        )
    if value < least or (most is not None and value > most):
        raise ValueError(f"Loader: {name} is {value}; allowed are whole numbers {limits}")
