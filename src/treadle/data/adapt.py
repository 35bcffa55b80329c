"""Any dataset with numbered samples, put behind `Rows`."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any, cast

import numpy as np
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from treadle.data.columns import is_columns
from treadle.data.huggingface import HuggingFaceRows, is_huggingface
from treadle.data.rows import Collate, ManyRows, Rows, SampleRows, SubsetRows, Transform, UnstackedRows
from treadle.data.seeding import NoSeeding, Seeding


def rows_of(
    dataset: Any,
    *,
    seed: int = 0,
    seed_samples: bool = True,
    transform: Transform | None = None,
    collate: Collate | None = None,
    where: str = "data",
) -> Rows:
    """Put any dataset with numbered samples behind `Rows`.

    Args:
        dataset: tensors, arrays, or a tuple, list or dictionary of them; a TensorDataset; a Hugging Face
            dataset; or anything with `__len__` and `__getitem__` (or `__getitems__`).
        seed: the run's seed.
        seed_samples: seed the host's generators from (seed, epoch, index) before each sample.
        transform: applied to each sample; data in memory are then read sample by sample too.
        collate: makes a batch of a list of samples; torch's `default_collate` where it is None.
        where: what error messages call the data.

    Raises:
        TypeError: this is no such dataset.
        ValueError: its parts do not fit together.
    """
    seeding = Seeding(seed) if seed_samples else NoSeeding(seed)
    if type(dataset) is Subset:
        inner = rows_of(
            dataset.dataset,
            seed=seed,
            seed_samples=seed_samples,
            transform=transform,
            collate=collate,
            where=where,
        )
        return SubsetRows(inner, dataset.indices, where)
    rows = whole_rows(dataset, where)
    if rows is not None:
        plain = transform is None and collate is None
        return rows if plain else UnstackedRows(rows, seeding, transform, collate)
    _check_map_style(dataset, where)
    if callable(getattr(dataset, "__getitems__", None)):
        return ManyRows(dataset, seeding, transform, collate)
    return SampleRows(dataset, seeding, transform, collate)


def whole_rows(dataset: Any, where: str) -> Rows | None:
    """Rows that are gathered a whole batch at a time; None for a dataset that is read sample by sample."""
    if is_columns(dataset):
        return Rows(dataset, where)
    if isinstance(dataset, TensorDataset) and type(dataset).__getitem__ is TensorDataset.__getitem__:
        return Rows(tuple(dataset.tensors), where)
    return HuggingFaceRows(dataset, where) if is_huggingface(dataset) else None


def _check_map_style(dataset: Any, where: str) -> None:
    kind = type(dataset)
    if kind.__module__.split(".")[0] == "pandas":
        raise TypeError(
            f"{where}: a pandas {kind.__name__} is no dataset; give its columns as arrays (.to_numpy())"
        )
    if isinstance(dataset, type):
        raise TypeError(f"{where}: {dataset.__name__} is a class; give an instance of it")
    if isinstance(dataset, (str, bytes)) or not hasattr(kind, "__getitem__"):
        raise TypeError(
            f"{where}: {kind.__name__} is not a dataset; allowed are tensors, NumPy arrays, tuples, lists "
            "and dictionaries of them, Hugging Face datasets, and objects with __len__ and __getitem__ "
            "or with __iter__"
        )
    if (
        isinstance(dataset, list)
        and dataset
        and all(isinstance(v, (Tensor, np.ndarray)) and v.ndim for v in dataset)
    ):
        raise TypeError(
            f"{where}: a list of {len(dataset)} arrays may be samples or columns; stack samples into one "
            "tensor, give columns as a tuple"
        )
    try:
        len(cast(Sized, dataset))
    except TypeError:
        raise TypeError(
            f"{where}: {kind.__name__} has __getitem__ but no __len__, so its order is unknown"
        ) from None
