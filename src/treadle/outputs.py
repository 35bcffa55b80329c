"""What a model says of batch after batch, made one: joined at the end, or put in its place as it comes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from treadle.data import map_tree, move

CPU = torch.device("cpu")

Layout = list[tuple[str, "Part"]]
"""The leaves' names, and what each has in all batches."""

Part = tuple[tuple[int, ...], torch.dtype] | None
"""What is the same in all batches of a leaf: the shape of a row, and the type; None for None."""


class Sink(Protocol):
    """What takes in outputs batch by batch and has all of them at the end."""

    def add(self, output: Any) -> None:
        """Take in what the model said of the next batch, which may change afterwards."""

    def result(self) -> Any:
        """All of it, in the order it came."""


class Outputs:
    """Outputs of all batches on the CPU. Base class: a list, joined at the end.

    Args:
        join: makes one of the list; `Task.join`.
    """

    def __init__(self, join: Callable[[list[Any]], Any]) -> None:
        self._join = join
        self._batches: list[Any] = []

    def add(self, output: Any) -> None:
        """Take in what the model said of the next batch; waits for the device."""
        self._batches.append(map_tree(_own, output))

    def result(self) -> Any:
        """All of it, in the order it came."""
        return self._join(self._batches)


class StoredOutputs(Outputs):
    """Rows of tensors, copied batch by batch into storage for all of the data.

    It is made when the first batch has shown what rows look like, so there never are two copies of
    everything, as there are when a list is joined. Batches that differ in more than their number of rows, or
    hold something other than tensors with a row for each sample, are kept in a list and joined.

    Args:
        join: see `Outputs`; used where there is a list after all.
        rows: how many there will be; where only `batches` is known, None.
        batches: how many batches there will be, or None.
        device: where the storage lies.
    """

    def __init__(
        self,
        join: Callable[[list[Any]], Any],
        rows: int | None,
        batches: int | None = None,
        device: torch.device = CPU,
    ) -> None:
        super().__init__(join)
        self._rows, self._count, self._device = rows, batches, device
        self._stops = [0]
        self._storage: list[Tensor | None] = []
        self._layout: Layout = []
        self._add: Callable[[Any], None] = self._add_first

    def add(self, output: Any) -> None:
        """Put what the model said of the next batch into its place; waits for another device."""
        self._add(output)

    def result(self) -> Any:
        """All of it, in the order it came."""
        if self._batches or not self._storage:
            return super().result()
        rows = self._stops[-1]
        whole = [one if one is None or len(one) == rows else one[:rows].clone() for one in self._storage]
        return self._tree(whole)

    def _add_first(self, output: Any) -> None:
        parts = list(named_leaves(output))
        layout, rows = layout_of(parts), rows_of(parts)
        total = self._rows if self._rows is not None or self._count is None else self._count * (rows or 0)
        if layout is None or not rows or total is None or total < rows:
            self._turn_to_list(output)
            return
        self._layout, self._first = layout, output
        self._storage = [
            part and torch.empty((total, *part[0]), dtype=part[1], device=self._device) for _, part in layout
        ]
        if type(output) is Tensor:
            assert self._storage[0] is not None
            self._whole, self._add = self._storage[0], self._add_tensor
        else:
            self._add = self._add_tree
        self._add(output)

    def _add_tensor(self, output: Any) -> None:
        """`_add_tree` for the usual case of one tensor."""
        whole = self._whole
        if type(output) is Tensor and output.dtype is whole.dtype and output.ndim == whole.ndim:
            start = self._stops[-1]
            stop = start + output.shape[0]
            place = whole[start:stop]
            if place.shape == output.shape:  # and there is room for it
                place.copy_(output)  # waits for another device
                self._stops.append(stop)
                return
        self._turn_to_list(output)

    def _add_tree(self, output: Any) -> None:
        parts = list(named_leaves(output))
        start, rows = self._stops[-1], rows_of(parts)
        total = next(len(one) for one in self._storage if one is not None)
        if rows is None or layout_of(parts) != self._layout or start + rows > total:
            self._turn_to_list(output)
            return
        for whole, (_, leaf) in zip(self._storage, parts, strict=True):
            if whole is not None:
                whole[start : start + rows].copy_(leaf)  # waits for another device
        self._stops.append(start + rows)

    def _turn_to_list(self, output: Any) -> None:
        for start, stop in zip(self._stops, self._stops[1:], strict=False):
            self._batches.append(
                self._tree([one if one is None else one[start:stop] for one in self._storage])
            )
        self._add = super().add
        self._add(output)

    def _tree(self, parts: list[Tensor | None]) -> Any:
        remaining = iter(parts)
        return map_tree(lambda _: next(remaining), self._first)


class JoinedOutputs(Outputs):
    """A list, joined at the end, that goes on as one.

    Args:
        join: see `Outputs`.
        sink: gets what was joined.
    """

    def __init__(self, join: Callable[[list[Any]], Any], sink: Sink) -> None:
        super().__init__(join)
        self._sink = sink

    def result(self) -> Any:
        """What the sink makes of it."""
        self._sink.add(super().result())
        return self._sink.result()


def _own(leaf: Any) -> Any:
    return leaf.to(CPU, copy=True) if isinstance(leaf, Tensor) else move(leaf, CPU)  # waits for the device


def named_leaves(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf with the names that lead to it, joined by dots; in the order of `map_tree`."""
    children: Any
    if isinstance(tree, Tensor):
        yield name, tree
        return
    if isinstance(tree, Mapping):
        children = tree.items()
    elif isinstance(tree, tuple) and hasattr(tree, "_fields"):
        children = zip(tree._fields, tree, strict=True)
    elif isinstance(tree, (tuple, list)):
        children = enumerate(tree)
    elif dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        children = ((field.name, getattr(tree, field.name)) for field in dataclasses.fields(tree))
    else:
        yield name, tree
        return
    for key, child in children:
        yield from named_leaves(child, f"{name}.{key}" if name else str(key))


def layout_of(parts: list[tuple[str, Any]]) -> Layout | None:
    """What all batches must have in common to be stored as rows; None where a leaf is no tensor of rows."""
    layout: Layout = []
    for name, leaf in parts:
        if leaf is None:
            layout.append((name, None))
        elif type(leaf) is Tensor and leaf.ndim and leaf.layout is torch.strided:
            layout.append((name, (tuple(leaf.shape[1:]), leaf.dtype)))
        else:
            return None
    return layout


def rows_of(parts: list[tuple[str, Any]]) -> int | None:
    """How many rows a batch has; None where its tensors have different numbers of them, or it has none."""
    counts = {len(leaf) for _, leaf in parts if isinstance(leaf, Tensor) and leaf.ndim}
    return counts.pop() if len(counts) == 1 else None
