"""Hugging Face datasets: whole batches in NumPy format. The library is recognised, not imported."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from treadle.data.arrow import arrow_column
from treadle.data.batch import map_tree
from treadle.data.columns import Column, gather_columns
from treadle.data.order import Indices
from treadle.data.rows import Rows, as_leaves


def is_huggingface(dataset: Any) -> bool:
    """Whether this is a Hugging Face `Dataset` that has no transform of its own set on it."""
    kind = type(dataset)
    known = kind.__module__.split(".")[0] == "datasets" and hasattr(kind, "with_format")
    return known and hasattr(kind, "__getitem__") and dataset.format["type"] in (None, "numpy", "torch")


class HuggingFaceRows(Rows):
    """A Hugging Face dataset: a batch is a dictionary of columns, numbers and images as tensors.

    Types are those of the dataset (the library's own NumPy and torch formats widen uint8 to int64). Strings
    and rows of unequal shapes stay lists. Columns of numbers of one shape are read from the Arrow table
    itself, many times faster than through the library; so it is not for a dataset with a selection of rows
    upon it (`dataset.flatten_indices()` writes one out).
    """

    def __init__(self, dataset: Any, where: str = "data") -> None:
        self._given = (dataset, where)
        names = list(dataset.format["columns"])
        self._names = names
        self._length = len(dataset)
        self._columns = _arrow_columns(dataset, names)
        others = [name for name in names if name not in self._columns]
        self._others = dataset.with_format("numpy", columns=others, dtype=None) if others else None

    def __reduce__(self) -> Any:
        # To another process goes the dataset, which knows its files, not the values in its table.
        return type(self), self._given

    def gather(self, indices: Indices, epoch: int, numbers: Indices | None = None) -> Any:
        """The batch as a dictionary by column."""
        if not len(indices):
            first = as_leaves(self._read(np.zeros(1, dtype=np.int64)))
            return map_tree(lambda leaf: leaf[:0].tolist() if leaf.dtype == object else leaf[:0], first)
        return self._read(indices)

    def runs(self, bounds: Iterable[tuple[int, int]], epoch: int) -> Iterator[Any]:
        """The batches of the samples from `start` to `stop` for each such pair."""
        return (self.gather(np.arange(*pair), epoch) for pair in bounds)

    def _read(self, indices: Indices) -> dict[str, Any]:
        read = gather_columns(self._columns, indices)
        if self._others is not None:
            read |= {key: _tensor(value) for key, value in self._others[indices.tolist()].items()}
        return {name: read[name] for name in self._names}


def _arrow_columns(dataset: Any, names: list[str]) -> dict[str, Column]:
    """The columns that can be read from the table; each is compared with what the library reads."""
    if not len(dataset) or getattr(dataset, "_indices", dataset) is not None:
        return {}
    table = dataset.with_format("arrow", columns=names)[:]
    found = {name: column for name in names if (column := arrow_column(table.column(name))) is not None}
    some = np.unique(np.array([0, len(dataset) // 2, len(dataset) - 1]))
    rows = dataset.with_format("numpy", columns=list(found), dtype=None)[some.tolist()] if found else {}
    return {name: column for name, column in found.items() if _same(column.gather(some), _tensor(rows[name]))}


def _same(one: Tensor, other: Any) -> bool:
    return (
        isinstance(other, Tensor)
        and one.dtype == other.dtype
        and one.shape == other.shape
        and torch.equal(one.view(torch.uint8), other.contiguous().view(torch.uint8))
    )


def _tensor(value: Any) -> Any:
    """Stack a column where its rows allow it."""
    if isinstance(value, dict):
        return {key: _tensor(part) for key, part in value.items()}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return torch.from_numpy(value if value.flags.writeable else value.copy())
    rows = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(rows, list) or not rows:
        return rows
    if all(isinstance(row, dict) for row in rows):
        return {key: _tensor([row[key] for row in rows]) for key in rows[0]}
    if all(isinstance(row, np.ndarray) and row.dtype.kind in "biufc" for row in rows):
        tensors = [torch.from_numpy(np.array(row)) for row in rows]
        equal = len({(row.shape, row.dtype) for row in rows}) == 1
        return torch.stack(tensors) if equal else tensors
    return rows
