"""Data in memory as columns: trees of tensors, arrays and lists whose rows are gathered a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import methodcaller
from typing import Any

import numpy as np
import torch
from torch import Tensor

from treadle.data.order import Indices


class Column:
    """One column. Base class: a tensor; gathering copies, so changing a batch leaves the data alone."""

    def __init__(self, values: Any) -> None:
        self._values = values
        self.copy = getattr(values, "narrow_copy", None)  # half the time of a slice and a clone

    def __len__(self) -> int:
        return len(self._values)

    def gather(self, indices: Indices) -> Any:
        """The rows at `indices`: a tensor of shape [len(indices), ...]."""
        return self._values.index_select(0, torch.from_numpy(indices))

    def run(self, start: int, stop: int) -> Any:
        """The rows from `start` to `stop`, as `gather` gives them."""
        return self._values.narrow_copy(0, start, stop - start)


class StridedColumn(Column):
    """A tensor that does not lie in one piece, of which `narrow_copy` would copy the whole first."""

    def run(self, start: int, stop: int) -> Any:
        """The rows from `start` to `stop`, as `gather` gives them."""
        return self._values[start:stop].clone(memory_format=torch.contiguous_format)


class ArrayColumn(Column):
    """A NumPy array that no tensor can stand for: read-only (a memory map) or not indexed by torch."""

    def gather(self, indices: Indices) -> Any:
        """The rows at `indices`, copied out of the array, as a tensor."""
        return torch.from_numpy(self._values.take(indices, axis=0))

    def run(self, start: int, stop: int) -> Any:
        """The rows from `start` to `stop`, as `gather` gives them."""
        return self.gather(np.arange(start, stop))


class ListColumn(Column):
    """Python objects, such as strings: they stay a list."""

    def gather(self, indices: Indices) -> Any:
        """The objects at `indices`, a list."""
        return [self._values[index] for index in indices.tolist()]

    def run(self, start: int, stop: int) -> Any:
        """The objects from `start` to `stop`, a list."""
        return self._values[start:stop]


class StackedColumn(ListColumn):
    """A list of tensors or arrays of one shape, one a sample: a batch stacks them."""

    def gather(self, indices: Indices) -> Any:
        """The rows at `indices`: a tensor of shape [len(indices), ...]."""
        if not len(indices):
            return torch.as_tensor(self._values[0]).new_empty((0, *self._values[0].shape))
        return torch.stack([torch.as_tensor(value).detach() for value in super().gather(indices)])

    def run(self, start: int, stop: int) -> Any:
        """The rows from `start` to `stop`, as `gather` gives them."""
        return self.gather(np.arange(start, stop))


def is_columns(data: Any) -> bool:
    """Whether `data` are columns: a tensor, an array, a dictionary or a tuple. A list holds samples."""
    if isinstance(data, tuple):
        return not hasattr(type(data), "__getitems__")
    return isinstance(data, (Tensor, np.ndarray, Mapping))


def array_kinds(values: list[Any]) -> set[tuple[tuple[int, ...], str]] | None:
    """The shapes and dtypes in a list of tensors and arrays; None where it is empty or holds others too."""
    if not values or not all(isinstance(value, (Tensor, np.ndarray)) for value in values):
        return None
    return {(tuple(value.shape), str(value.dtype).removeprefix("torch.")) for value in values}


def columns_of(data: Any, where: str) -> tuple[Any, int]:
    """The tree with a `Column` for each leaf, and the number of rows.

    Raises:
        TypeError: a leaf is neither tensor, array nor list.
        ValueError: there is no column, one is without dimensions, or lengths differ.
    """
    lengths: list[int] = []

    def build(tree: Any) -> Any:
        if isinstance(tree, (Mapping, tuple)):
            children = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
            built = {key: build(value) for key, value in children}
            if isinstance(tree, Mapping):
                return built
            return type(tree)(*built.values()) if hasattr(tree, "_fields") else tuple(built.values())
        column = _column(tree, where)
        lengths.append(len(column))
        return column

    tree = build(data)
    if not lengths:
        raise ValueError(f"{where}: an empty {type(data).__name__} holds no data")
    if len(set(lengths)) > 1:
        raise ValueError(f"{where}: the parts have different lengths: {', '.join(map(str, lengths))}")
    return tree, lengths[0]


def gather_columns(tree: Any, indices: Indices) -> Any:
    """The rows at `indices` of every column; neighbours in a row are copied at once, which is faster."""
    items = len(indices)
    if items and indices[-1] - indices[0] == items - 1 and (np.diff(indices) == 1).all():
        start = int(indices[0])
        return _each(tree, methodcaller("run", start, start + items))
    return _each(tree, lambda column: column.gather(indices))


def column_runs(tree: Any, bounds: Iterable[tuple[int, int]]) -> Iterator[Any]:
    """The rows from `start` to `stop` of every column for each such pair, as `gather_columns` gives them."""
    if type(tree) is tuple and all(type(column) is Column for column in tree):  # straight into torch
        copies = [column.copy for column in tree]
        for start, stop in bounds:
            yield tuple([copy(0, start, stop - start) for copy in copies])
    else:
        for start, stop in bounds:
            yield _each(tree, methodcaller("run", start, stop))


def _each(tree: Any, read: Callable[[Column], Any]) -> Any:
    if isinstance(tree, Column):
        return read(tree)
    if type(tree) is tuple:
        return tuple([_each(column, read) for column in tree])
    if type(tree) is dict:
        return {key: _each(column, read) for key, column in tree.items()}
    return type(tree)(*(_each(column, read) for column in tree))  # a named tuple


def _column(value: Any, where: str) -> Column:
    if isinstance(value, list):
        if value and all(isinstance(item, (bool, int, float)) for item in value):
            return Column(torch.from_numpy(np.asarray(value)))  # int64 or float64, as default_collate has it
        return StackedColumn(value) if len(array_kinds(value) or ()) == 1 else ListColumn(value)
    if not isinstance(value, (Tensor, np.ndarray)):
        raise TypeError(
            f"{where}: {type(value).__name__} is not data; allowed are tensors, NumPy arrays, lists, and "
            "tuples and dictionaries of them"
        )
    if not value.ndim:
        raise ValueError(f"{where}: a {type(value).__name__} without dimensions has no samples")
    if isinstance(value, Tensor):
        return _tensor_column(value.detach())
    return _array_column(value, where)


def _tensor_column(value: Tensor) -> Column:
    plain = value.layout is torch.strided and value.is_contiguous()
    return Column(value) if plain and not value.is_conj() and not value.is_neg() else StridedColumn(value)


def _array_column(value: np.ndarray[Any, Any], where: str) -> Column:
    if value.dtype.kind in "USO":
        return ListColumn(value.tolist() if value.ndim == 1 else list(value))
    if not value.dtype.isnative:
        value = value.astype(value.dtype.newbyteorder("="))
    try:
        torch.from_numpy(value[:0].copy())
    except TypeError:
        allowed = "numbers, booleans and strings"
        raise TypeError(
            f"{where}: an array of {value.dtype} cannot be a tensor; allowed are {allowed}"
        ) from None
    plain = value.flags.writeable and value.dtype not in (np.uint16, np.uint32, np.uint64)
    if plain and all(stride >= 0 for stride in value.strides):
        return _tensor_column(torch.from_numpy(value))
    return ArrayColumn(value)
