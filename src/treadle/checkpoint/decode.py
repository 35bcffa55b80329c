"""A tree of plain values from JSON and named tensors: the way back of `tree.encode`."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from treadle.checkpoint.errors import CheckpointError
from treadle.checkpoint.tree import MAX_DEPTH, NUMPY_TYPES, is_dense


def decode(skeleton: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Put a tree together again from what `encode` returned; nothing in it is imported or called.

    Raises:
        CheckpointError: it is not something that `encode` returns, or not all tensors are mentioned.
    """
    decoder = _Decoder(tensors)
    try:
        tree = decoder.value(skeleton, 0)
    except (ValueError, TypeError, KeyError, RuntimeError, OverflowError, struct.error) as error:
        raise CheckpointError(f"a value cannot be understood: {type(error).__name__}: {error}") from error
    unused = tensors.keys() - decoder.done.keys()
    if unused:
        raise CheckpointError(f"tensor {min(unused)!r} is not part of the state")
    return tree


class _Decoder:
    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        # One result for each tensor, however often it is mentioned: memory stays bounded by the file.
        self.done: dict[str, tuple[Any, Any]] = {}
        self._tensors = tensors

    def value(self, node: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        if isinstance(node, list):
            return [self.value(item, depth + 1) for item in node]
        if isinstance(node, dict):
            marker = next((key for key in node if key.startswith("$")), None)
            if marker is None:
                return {key: self.value(item, depth + 1) for key, item in node.items()}
            return self.marked(marker, node, depth)
        return node

    def marked(self, marker: str, node: dict[str, Any], depth: int) -> Any:
        content = node[marker]
        if marker == "$tensor":
            stride, is_complex = node.get("stride"), node.get("complex", False)
            known = {"$tensor": content, **_given(stride=stride), **_given(complex=is_complex or None)}
            if known != node:
                raise ValueError(f"unknown tensor marker {sorted(node)}")
            return self.once(
                content, ("tensor", stride, is_complex), lambda: self.tensor(content, stride, is_complex)
            )
        if len(node) != 1:
            raise ValueError(f"marker {marker!r} with other keys")
        if marker == "$bytes":
            return self.once(content, ("bytes",), lambda: self._tensors[content].numpy().tobytes())
        if marker == "$tuple":
            return tuple([self.value(item, depth + 1) for item in _list(content)])
        if marker == "$dict":
            pairs = {self.value(key, depth + 1): self.value(item, depth + 1) for key, item in _list(content)}
            if len(pairs) != len(content):
                raise ValueError("a dict with the same key twice")
            return pairs
        if marker == "$int":
            return int(content, 16)
        if marker == "$float":
            return struct.unpack(">d", bytes.fromhex(content))[0]
        if marker == "$numpy":
            name, data = content
            return np.frombuffer(bytes.fromhex(data), dtype=NUMPY_TYPES[name])[:1].reshape(())[()]
        raise ValueError(f"unknown marker {marker!r}")

    def once(self, name: str, use: tuple[Any, ...], make: Any) -> Any:
        if name not in self.done:
            self.done[name] = (use, make())
        elif self.done[name][0] != use:
            raise ValueError(f"tensor {name!r} is used in two ways")
        return self.done[name][1]

    def tensor(self, name: str, stride: Any, is_complex: bool) -> Tensor:
        tensor = self._tensors[name]
        if is_complex:
            tensor = torch.view_as_complex(tensor)
        if stride is None:
            return tensor
        if not all(type(step) is int and 0 <= step < 2**63 for step in stride) or not is_dense(
            tensor.shape, stride
        ):
            raise ValueError(f"tensor {name!r} cannot have strides {stride!r}")
        return torch.empty_strided(tensor.shape, stride, dtype=tensor.dtype).copy_(tensor)


def _given(**items: Any) -> dict[str, Any]:
    return {name: item for name, item in items.items() if item is not None}


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"a list is needed, not {type(value)}")
    return value
