"""Batches are trees: tensors in tuples, lists, dictionaries and dataclasses; all else is a leaf."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor


def map_tree(function: Callable[[Any], Any], tree: Any) -> Any:
    """Apply `function` to every leaf, keeping the containers' types; strings are leaves like tensors."""
    if isinstance(tree, Tensor):
        return function(tree)
    if type(tree) is tuple:  # the common case first: asking for a Mapping is slow
        return tuple([map_tree(function, value) for value in tree])
    if isinstance(tree, Mapping):
        return _like(tree, {key: map_tree(function, value) for key, value in tree.items()})
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(map_tree(function, value) for value in tree))
    if isinstance(tree, (tuple, list)):
        values = [map_tree(function, value) for value in tree]
        return values if type(tree) is list else type(tree)(values)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        return _replace(tree, {field: map_tree(function, value) for field, value in _fields(tree)})
    return function(tree)


def leaves(tree: Any) -> Iterator[Any]:
    """Every leaf of the tree, in order."""
    for child in _children(tree):
        if child is tree:
            yield child
        else:
            yield from leaves(child)


def batch_items(batch: Any) -> int:
    """The number of items in a batch: the leading dimension of its first tensor that has one.

    Raises:
        ValueError: there is no such tensor.
    """
    if isinstance(batch, (tuple, list)) and batch and isinstance(batch[0], Tensor) and batch[0].dim():
        return int(batch[0].shape[0])  # the common case, without walking the tree
    for leaf in leaves(batch):
        if isinstance(leaf, Tensor) and leaf.dim():
            return int(leaf.shape[0])
    raise ValueError(
        f"cannot count the items of a batch of type {_describe(batch)}: it holds no tensor with a leading "
        "dimension; override Task.num_items to say how many items it has"
    )


def samples_in(window: Sequence[Any]) -> int:
    """How many samples some batches have together; what cannot be counted is left out."""
    samples = 0
    for batch in window:
        first = batch[0] if type(batch) is tuple and batch else None
        if type(first) is Tensor and first.dim():
            samples += first.shape[0]  # the common case, without another call
        else:
            with suppress(ValueError):
                samples += batch_items(batch)
    return samples


def mover(device: torch.device | str, non_blocking: bool = False) -> Callable[[Any], Any]:
    """A function that moves batches to `device`, chosen once: for the CPU it hands them back untouched."""
    target = torch.device(device)
    if target.type == "cpu":
        return _untouched
    return lambda batch: move(batch, target, non_blocking)


def move(batch: Any, device: torch.device | str, non_blocking: bool = False) -> Any:
    """The batch with every tensor on `device`; what else has a `to(device)` of its own is asked to move.

    With `non_blocking`, copies from pinned memory do not make the host wait.
    """
    target = torch.device(device)

    def transfer(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return leaf.to(target, non_blocking=non_blocking)
        return leaf.to(target) if callable(getattr(leaf, "to", None)) else leaf

    # Packed sequences and tokenizer outputs are tuples and mappings that know how to move themselves.
    own = not isinstance(batch, Tensor) and callable(getattr(batch, "to", None))
    return batch.to(target) if own else map_tree(transfer, batch)


def pin(batch: Any) -> Any:
    """The batch with every CPU tensor in pinned memory, so that it can be copied while the host goes on."""

    def pinned(leaf: Any) -> Any:
        return leaf.pin_memory() if isinstance(leaf, Tensor) and leaf.device.type == "cpu" else leaf

    return map_tree(pinned, batch)


def take(batch: Any, start: int, stop: int) -> Any:
    """Items `start` to `stop` of a batch, as views; see `split` for what happens to which leaf."""
    return _slice(batch, start, stop, batch_items(batch))


def split(batch: Any, size: int) -> list[Any]:
    """Cut a batch into micro-batches of `size` items, the last one possibly shorter.

    Tensors are cut along their first dimension (views, no copies), and so are lists of leaves as long as
    the batch, such as file names. Tensors without dimensions and other leaves are in every part. An empty
    batch gives one empty part.

    Raises:
        ValueError: `size` is not positive, there is no tensor, or the tensors' leading dimensions differ.
    """
    if size < 1:
        raise ValueError(f"split: size is {size}; allowed are whole numbers from 1")
    items = batch_items(batch)
    if items <= size:
        return [batch]
    return [_slice(batch, start, min(start + size, items), items) for start in range(0, items, size)]


def concatenate(batches: list[Any]) -> Any:
    """Join outputs of equal structure along the first dimension, in the order given; undoes `split`.

    Tensors without dimensions are stacked; lists of leaves are joined; other leaves become a list, or
    stay None where all are None.

    Raises:
        ValueError: there is nothing to join, or the structures or the shapes of rows differ.
    """
    if not batches:
        raise ValueError("concatenate: there is nothing to join")
    first = batches[0]
    if isinstance(first, Tensor):
        try:
            return torch.cat(batches) if first.dim() else torch.stack(batches)
        except RuntimeError as error:
            shapes = {tuple(batch.shape[1:]) for batch in batches if isinstance(batch, Tensor)}
            if len(shapes) == 1:
                raise
            some = ", ".join(map(str, sorted(shapes)))
            raise ValueError(
                f"batches cannot be made one: their rows have the shapes {some}. Pad all to one length "
                "(treadle.interop.huggingface.Padding(length=...)), or override Task.join"
            ) from error
    if isinstance(first, np.ndarray):
        return np.concatenate(batches) if first.ndim else np.stack(batches)
    for other in batches[1:]:
        if type(other) is not type(first) or (isinstance(first, Mapping) and other.keys() != first.keys()):
            raise ValueError(f"concatenate: the structures differ: {_describe(first)} and {_describe(other)}")
    if isinstance(first, Mapping):
        return _like(first, {key: concatenate([batch[key] for batch in batches]) for key in first})
    if _is_column(first):
        return [leaf for batch in batches for leaf in batch]
    if isinstance(first, (tuple, list)):
        if any(len(other) != len(first) for other in batches):
            raise ValueError(f"concatenate: lengths differ: {sorted({len(other) for other in batches})}")
        joined = [concatenate(list(values)) for values in zip(*batches, strict=True)]
        if hasattr(first, "_fields"):
            return type(first)(*joined)
        return joined if type(first) is list else type(first)(joined)
    if dataclasses.is_dataclass(first):
        return _replace(
            first, {field: concatenate([getattr(b, field) for b in batches]) for field, _ in _fields(first)}
        )
    return None if all(batch is None for batch in batches) else list(batches)


def _untouched(batch: Any) -> Any:
    return batch


def _slice(tree: Any, start: int, stop: int, items: int) -> Any:
    if isinstance(tree, (Tensor, np.ndarray)):
        if not tree.ndim:
            return tree
        if len(tree) != items:
            raise ValueError(
                f"cannot cut a batch of {items} items: a tensor of shape {tuple(tree.shape)} has another "
                "leading dimension; all must agree"
            )
        return tree[start:stop]
    if _is_column(tree):
        return tree[start:stop] if len(tree) == items else tree
    children = list(_children(tree))
    if children and children[0] is tree:
        return tree
    parts = iter([_slice(child, start, stop, items) for child in children])
    return _rebuild(tree, parts)


def _children(tree: Any) -> Iterator[Any]:
    if isinstance(tree, Mapping):
        yield from tree.values()
    elif isinstance(tree, (tuple, list)):
        yield from tree
    elif dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        yield from (value for _, value in _fields(tree))
    else:
        yield tree


def _rebuild(tree: Any, values: Iterator[Any]) -> Any:
    if isinstance(tree, Mapping):
        return _like(tree, dict(zip(tree, values, strict=True)))
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*values)
    if isinstance(tree, (tuple, list)):
        return type(tree)(values)
    return _replace(tree, {field: value for (field, _), value in zip(_fields(tree), values, strict=True)})


def _is_column(tree: Any) -> bool:
    """Whether this is a list of leaves, one an item: file names, captions, Python numbers."""
    leaf = (str, bytes, int, float, type(None))
    return isinstance(tree, list) and bool(tree) and all(isinstance(value, leaf) for value in tree)


def _fields(tree: Any) -> list[tuple[str, Any]]:
    return [(field.name, getattr(tree, field.name)) for field in dataclasses.fields(tree)]


def _replace(tree: Any, values: dict[str, Any]) -> Any:
    clone = copy.copy(tree)  # not dataclasses.replace, which runs __post_init__ again
    for field, value in values.items():
        object.__setattr__(clone, field, value)
    return clone


def _like(tree: Any, values: dict[Any, Any]) -> Any:
    if dataclasses.is_dataclass(tree):  # outputs of Hugging Face models: items that are attributes too
        clone = _replace(tree, {field: values[field] for field, _ in _fields(tree) if field in values})
        for key in values if isinstance(clone, MutableMapping) else ():
            clone[key] = values[key]
        return clone
    if type(tree) is dict or not isinstance(tree, MutableMapping):
        return values
    clone = copy.copy(tree)  # keeps what a subclass has beside its items, such as a default factory
    clone.update(values)
    return clone


def _describe(tree: Any) -> str:
    if isinstance(tree, Mapping):
        return f"{type(tree).__name__} with keys {sorted(map(str, tree))}"
    if isinstance(tree, (tuple, list)):
        return f"{type(tree).__name__} of {', '.join(type(value).__name__ for value in tree) or 'nothing'}"
    return type(tree).__name__
