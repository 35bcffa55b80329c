"""A DataLoader's batches made whole: gathered from memory at once rather than collated sample by sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    Subset,
    TensorDataset,
    default_collate,
    sampler,
)

from treadle.data.adapt import whole_rows
from treadle.data.huggingface import is_huggingface
from treadle.data.rows import Rows, SubsetRows

_EAGER = (
    sampler.SequentialSampler,
    sampler.RandomSampler,
    sampler.SubsetRandomSampler,
    sampler.WeightedRandomSampler,
)
"""Samplers that draw all they ever draw as an epoch begins, so it is the same who asks them, and when."""


def whole_batches(loader: DataLoader[Any]) -> DataLoader[Any]:
    """A DataLoader of the same batches, bit for bit, that reads them whole; `loader` itself where none can.

    It can where the dataset lies in memory (a TensorDataset, a Hugging Face dataset, a Subset of one), only
    torch's own collate function sees the samples, and the first and the last sample come out the same both
    ways. The sampler and the generators are the caller's, and so is every draw from them. It has no workers:
    they would carry over what is here already.
    """
    batch_sampler = loader.batch_sampler
    theirs = loader.collate_fn is not default_collate or loader.worker_init_fn is not None
    if theirs or batch_sampler is None or loader.persistent_workers or type(loader) is not DataLoader:
        return loader
    if loader.num_workers and not (
        type(batch_sampler) is BatchSampler and type(batch_sampler.sampler) in _EAGER
    ):
        return loader
    rows = _rows_in_memory(loader.dataset)
    if rows is None or not len(rows):
        return loader
    ends = [0, len(rows) - 1]
    try:
        collated = default_collate([loader.dataset[number] for number in ends])
    except (TypeError, RuntimeError):  # what cannot be collated shall fail where it always does
        return loader
    whole = WholeBatches(rows, collated)
    if not _equal(collated, whole.__getitems__(ends)):
        return loader
    return DataLoader(
        whole,
        batch_sampler=batch_sampler,
        collate_fn=_as_it_is,
        generator=loader.generator,
        pin_memory=loader.pin_memory,
    )


class WholeBatches(Dataset[Any]):
    """Rows as a dataset whose many items are a batch, with the containers and types of a collated one."""

    def __init__(self, rows: Rows, collated: Any) -> None:
        self._rows = rows
        self._collated = collated

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> Any:
        """The batch of the samples at `indices`."""
        numbers = np.asarray(indices, dtype=np.int64)
        return _conform(
            self._rows.gather(np.where(numbers < 0, numbers + len(self), numbers), 0), self._collated
        )


def _rows_in_memory(dataset: Any) -> Rows | None:
    if type(dataset) is Subset:
        inner = _rows_in_memory(dataset.dataset)
        return None if inner is None else SubsetRows(inner, dataset.indices, "DataLoader")
    known = isinstance(dataset, TensorDataset) or is_huggingface(dataset)
    return whole_rows(dataset, "DataLoader") if known else None


def _conform(batch: Any, like: Any) -> Any:
    """A gathered batch as default_collate gives it: sequences as lists, numbers in the type of Python's."""
    if isinstance(batch, Tensor):
        return batch.to(like.dtype) if isinstance(like, Tensor) else batch
    if isinstance(batch, dict) and isinstance(like, dict) and batch.keys() == like.keys():
        return {key: _conform(value, like[key]) for key, value in batch.items()}
    if isinstance(batch, tuple) and isinstance(like, list) and len(batch) == len(like):
        return [_conform(value, part) for value, part in zip(batch, like, strict=True)]
    return batch


def _equal(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape
        return same and torch.equal(one.nan_to_num(), other.nan_to_num())
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)


def _as_it_is(batch: Any) -> Any:
    return batch
