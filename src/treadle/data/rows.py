"""Datasets with numbered samples, all behind one face: `gather(indices, epoch)` returns a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import default_collate

from treadle.data.batch import leaves, map_tree, take
from treadle.data.columns import column_runs, columns_of, gather_columns
from treadle.data.order import Indices
from treadle.data.seeding import Seeding

Collate = Callable[[list[Any]], Any]
Transform = Callable[[Any], Any]


class Rows:
    """Samples by number. Base class: columns in memory, gathered a whole batch at a time.

    A batch has the structure of the data: a tensor gives a tensor, a tuple of tensors and a TensorDataset
    a tuple, a dictionary a dictionary. Its values are bit for bit those of a DataLoader.
    """

    def __init__(self, data: Any, where: str = "data") -> None:
        self._columns, self._length = columns_of(data, where)

    def __len__(self) -> int:
        return self._length

    def gather(self, indices: Indices, epoch: int, numbers: Indices | None = None) -> Any:
        """The batch of the samples at `indices` (int64, shape [items], possibly empty) in `epoch`.

        What is random about them is seeded from `numbers` of the same shape, if given, in their place.
        """
        return gather_columns(self._columns, indices)

    def runs(self, bounds: Iterable[tuple[int, int]], epoch: int) -> Iterator[Any]:
        """The batches of the samples from `start` to `stop` for each such pair, as `gather` gives them."""
        return column_runs(self._columns, bounds)

    def samples(self, indices: Indices) -> list[Any]:
        """The samples themselves, one by one; they share no memory with the data."""
        leaves_of = as_leaves(self.gather(indices, 0))
        return [map_tree(itemgetter(number), leaves_of) for number in range(len(indices))]


class SampleRows(Rows):
    """A map-style dataset: `dataset[index]`, an optional transform of each sample, then a collate function.

    Around each sample the host's generators are seeded from (seed, epoch, index) unless `seeding` says
    otherwise. A dataset with `__getitems__` (a list of indices in, a list of samples out) is asked once a
    batch; what it draws then follows from the batch's first index (or number, see `gather`).
    """

    def __init__(self, dataset: Any, seeding: Seeding, transform: Transform | None, collate: Collate | None):
        self._dataset = dataset
        self._length = len(dataset)
        self._seeding = seeding
        self._transform = transform
        self._collate = default_collate if collate is None else collate

    def gather(self, indices: Indices, epoch: int, numbers: Indices | None = None) -> Any:
        """The collated batch; no indices give a batch of no items, shaped like that of the first sample."""
        if not len(indices):
            return emptied(self.gather(np.zeros(1, dtype=np.int64), epoch))
        with self._seeding.around_batch():
            chosen = indices.tolist()
            return self._collate(self._fetch(chosen, chosen if numbers is None else numbers.tolist(), epoch))

    def runs(self, bounds: Iterable[tuple[int, int]], epoch: int) -> Iterator[Any]:
        """The samples from `start` to `stop`, collated, for each such pair."""
        return (self.gather(np.arange(*pair), epoch) for pair in bounds)

    def _fetch(self, indices: list[int], numbers: list[int], epoch: int) -> list[Any]:
        samples = []
        for index, number in zip(indices, numbers, strict=True):
            self._seeding.start_sample(epoch, number)
            try:
                sample = self._dataset[index]
                samples.append(sample if self._transform is None else self._transform(sample))
            except Exception as error:
                error.add_note(f"treadle: while reading sample {index} in epoch {epoch}")
                raise
        return samples

    def _transformed(
        self, samples: list[Any], indices: list[int], numbers: list[int], epoch: int
    ) -> list[Any]:
        if self._transform is None:
            return samples
        results = []
        for index, number, sample in zip(indices, numbers, samples, strict=True):
            self._seeding.start_sample(epoch, number)
            try:
                results.append(self._transform(sample))
            except Exception as error:
                error.add_note(f"treadle: while transforming sample {index} in epoch {epoch}")
                raise
        return results


class ManyRows(SampleRows):
    """A map-style dataset that fetches many samples at once by `__getitems__`."""

    def _fetch(self, indices: list[int], numbers: list[int], epoch: int) -> list[Any]:
        self._seeding.start_sample(epoch, numbers[0])
        try:
            samples = self._dataset.__getitems__(indices)
        except Exception as error:
            error.add_note(f"treadle: while reading samples {indices} in epoch {epoch}")
            raise
        return self._transformed(samples, indices, numbers, epoch)


class UnstackedRows(SampleRows):
    """Rows gathered as a batch, then taken apart for a transform or a collate function of single samples."""

    def __init__(self, rows: Rows, seeding: Seeding, transform: Transform | None, collate: Collate | None):
        super().__init__(rows, seeding, transform, collate)

    def _fetch(self, indices: list[int], numbers: list[int], epoch: int) -> list[Any]:
        samples = self._dataset.samples(np.asarray(indices, dtype=np.int64))
        return self._transformed(samples, indices, numbers, epoch)


class SubsetRows(Rows):
    """Some rows of other rows: torch's `Subset`, whose samples keep their own numbers for seeding."""

    def __init__(self, rows: Rows, chosen: Any, where: str) -> None:
        self._rows = rows
        self._chosen = np.asarray(chosen, dtype=np.int64).reshape(-1)
        self._chosen = np.where(self._chosen < 0, self._chosen + len(rows), self._chosen)
        self._length = len(self._chosen)
        if self._length and not (self._chosen.min() >= 0 and self._chosen.max() < len(rows)):
            raise ValueError(f"{where}: a Subset has indices outside its dataset of {len(rows)} samples")

    def gather(self, indices: Indices, epoch: int, numbers: Indices | None = None) -> Any:
        """The batch of the chosen rows."""
        return self._rows.gather(self._chosen[indices], epoch, numbers)

    def runs(self, bounds: Iterable[tuple[int, int]], epoch: int) -> Iterator[Any]:
        """The batches of the chosen rows from `start` to `stop` for each such pair."""
        return (self.gather(np.arange(*pair), epoch) for pair in bounds)


def as_leaves(batch: Any) -> Any:
    """Lists of Python objects as object arrays, so that they are leaves to index rather than containers."""
    if isinstance(batch, list):
        column = np.empty(len(batch), dtype=object)
        for number, value in enumerate(batch):  # at once, arrays of one shape would be taken for a dimension
            column[number] = value
        return column
    if isinstance(batch, dict):
        return {key: as_leaves(value) for key, value in batch.items()}
    if isinstance(batch, tuple):
        values = [as_leaves(value) for value in batch]
        return type(batch)(*values) if hasattr(batch, "_fields") else tuple(values)
    return batch


def emptied(batch: Any) -> Any:
    """A batch of no items like this one; None if it holds no tensors."""
    has_items = any(isinstance(leaf, Tensor) and leaf.dim() for leaf in leaves(batch))
    return take(batch, 0, 0) if has_items else None
