"""Hugging Face datasets: whole batches in NumPy format. The library is recognised, not imported."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from treadle.data.batch import map_tree
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
    and rows of unequal shapes stay lists.
    """

    def __init__(self, dataset: Any, where: str = "data") -> None:
        self._dataset = dataset.with_format("numpy", columns=dataset.format["columns"], dtype=None)
        self._length = len(dataset)

    def gather(self, indices: Indices, epoch: int) -> Any:
        """The batch as a dictionary by column."""
        if not len(indices):
            first = as_leaves(self._read(np.zeros(1, dtype=np.int64)))
            return map_tree(lambda leaf: leaf[:0].tolist() if leaf.dtype == object else leaf[:0], first)
        return self._read(indices)

    def _read(self, indices: Indices) -> dict[str, Any]:
        return {key: _tensor(value) for key, value in self._dataset[indices.tolist()].items()}


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
