"""Any dataset with numbered samples, put behind `Rows`."""

from __future__ import annotations

import warnings
from collections.abc import Sized
from typing import Any, cast

from torch.utils.data import Subset, TensorDataset

from treadle.data.columns import array_kinds, is_columns
from treadle.data.huggingface import HuggingFaceRows, is_huggingface
from treadle.data.rows import Collate, ManyRows, Rows, SampleRows, SubsetRows, Transform, UnstackedRows
from treadle.data.seeding import NoSeeding, Seeding

_MOST_COLUMNS = 8  # of tensors: more of them in a list nobody means as columns


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
        dataset: a tensor or array, or a tuple or dictionary of them, which are columns; a TensorDataset; a
            Hugging Face dataset; or anything with `__len__` and `__getitem__` (or `__getitems__`), such as
            a list of samples.
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


def check_list(dataset: Any, where: str) -> None:
    """Look at a list of tensors or arrays that torch's `default_collate` is to join: samples, one each.

    Some write lists for columns. Of those that could be either, a warning says how they are read.

    Raises:
        ValueError: they have different shapes or dtypes, so they cannot be such samples.
    """
    kinds = array_kinds(dataset) if isinstance(dataset, list) else None
    if not kinds:
        return
    if len(kinds) > 1:
        some = " and ".join(f"{shape} of {dtype}" for shape, dtype in sorted(kinds)[:2])
        raise ValueError(
            f"{where}: a list holds samples, and these have different shapes or dtypes: {some}; give columns "
            "as a tuple, and samples of different shapes to a Loader with collate="
        )
    ((shape, _),) = kinds
    if len(dataset) <= _MOST_COLUMNS and shape and shape[0] > len(dataset):
        warnings.warn(
            f"{where}: a list holds samples, so these are {len(dataset)} samples of shape {shape}; give "
            "columns as a tuple (torch.stack(samples) says the same as this list, without the warning)",
            stacklevel=4,  # where the Loader is made
        )


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
            f"{where}: {kind.__name__} is not a dataset; allowed are tensors, NumPy arrays, tuples and "
            "dictionaries of them, lists of samples, Hugging Face datasets, and objects with __len__ and "
            "__getitem__ or with __iter__"
        )
    try:
        len(cast(Sized, dataset))
    except TypeError:
        raise TypeError(
            f"{where}: {kind.__name__} has __getitem__ but no __len__, so its order is unknown"
        ) from None
