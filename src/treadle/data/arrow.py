"""Columns of numbers in Arrow tables, read where they lie: in memory, or in a file that is mapped into it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from treadle.data.columns import Column
from treadle.data.order import Indices

_MOST_LISTS = 50_000_000
"""How many inner lists are looked at, at most, to see whether all are of one length: about 0.1 s."""


class ArrowColumn(Column):
    """A column whose rows are all of one shape, as views of the chunks that Arrow holds it in.

    Nothing is copied before a batch is gathered, so a table larger than memory stays where it is.

    Args:
        views: for each chunk its values, [rows, ...]; at least one.
    """

    def __init__(self, views: list[NDArray[Any]]) -> None:
        self._views = views
        self._starts = np.cumsum([0, *(len(view) for view in views)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def gather(self, indices: Indices) -> torch.Tensor:
        """The rows at `indices`: a tensor of shape [len(indices), ...]."""
        if len(self._views) == 1:
            return torch.from_numpy(self._views[0].take(indices, axis=0))
        first = self._views[0]
        rows = np.empty((len(indices), *first.shape[1:]), first.dtype)
        order = np.argsort(indices, kind="stable")
        ends = np.searchsorted(indices[order], self._starts)
        for chunk in np.flatnonzero(np.diff(ends)):
            places = order[ends[chunk] : ends[chunk + 1]]
            rows[places] = self._views[chunk][indices[places] - self._starts[chunk]]
        return torch.from_numpy(rows)

    def run(self, start: int, stop: int) -> torch.Tensor:
        """The rows from `start` to `stop`, as `gather` gives them."""
        return self.gather(np.arange(start, stop))


def arrow_column(column: Any) -> ArrowColumn | None:
    """The column for a `pyarrow.ChunkedArray`; None where its rows are no numbers of one shape.

    That is so for strings, booleans (which Arrow packs into bits), dates, missing values, rows of unequal
    lengths, and more than `_MOST_LISTS` inner lists without a declared length.
    """
    views = [_view(chunk) for chunk in column.chunks if len(chunk)]
    if not views or any(view is None for view in views):
        return None
    known = [view for view in views if view is not None]
    kinds = {(view.shape[1:], view.dtype) for view in known}
    return ArrowColumn(known) if len(kinds) == 1 else None


def _view(array: Any) -> NDArray[Any] | None:
    """The values of an Arrow array as [rows, ...] without a copy; None where that cannot be."""
    array = getattr(array, "storage", array)  # of a type of its own, such as an image's
    shape = [len(array)]
    while hasattr(array, "flatten") and hasattr(array, "values"):  # lists of lists
        length = _length_of(array)
        if length is None:
            return None
        shape.append(length)
        array = array.flatten()
    if array.null_count:
        return None
    try:
        values = array.to_numpy(zero_copy_only=True)
    except (TypeError, ValueError):  # pyarrow's own errors are among these
        return None
    return values.reshape(shape) if values.dtype.kind in "iufc" else None


def _length_of(lists: Any) -> int | None:
    """The length that all lists of an array have, if they have one."""
    if lists.null_count or not len(lists):
        return None
    declared = getattr(lists.type, "list_size", None)
    if isinstance(declared, int):
        return declared
    if not hasattr(lists, "offsets") or len(lists) > _MOST_LISTS:
        return None
    offsets = lists.offsets.to_numpy()
    length = int(offsets[1] - offsets[0])
    return length if bool((np.diff(offsets) == length).all()) else None
