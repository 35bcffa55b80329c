"""A tree of plain values as JSON plus named tensors; `decode` is the way back, exactly.

A tree is made of dict, list, tuple, tensor, NumPy scalar, int, float, str, bool, bytes and None. What JSON
cannot say is an object with one marker key: `$tensor`, `$tuple`, `$dict`, `$float`, `$int`, `$bytes`,
`$numpy`. A dict that has keys other than strings, or one that starts with `$`, is written as `$dict`, so no
tree can be taken for a marker.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from treadle.checkpoint.shard import Shard
from treadle.checkpoint.tensors import NAMES

MAX_DEPTH = 100
ALLOWED = "dict, list, tuple, dense tensor, NumPy scalar, int, float, str, bool, bytes, None"
NUMPY_TYPES: dict[str, type[np.generic]] = {
    kind.__name__: kind
    for kind in (
        *(np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64),
        *(np.float16, np.float32, np.float64),
    )
}
_HINTS: dict[type, str] = {np.ndarray: "; make it a tensor with torch.from_numpy"}


def refuse(value: object, path: str) -> TypeError:
    """The error for a value that no checkpoint can hold; it says where in the tree the value is."""
    hint = next((text for kind, text in _HINTS.items() if isinstance(value, kind)), "")
    return TypeError(f"{path}: {type(value)} cannot be saved{hint}. Allowed are {ALLOWED}")


def check_tensor(tensor: Tensor, path: str) -> Tensor:
    """The tensor without its graph, if its elements can be written one after another.

    Raises:
        TypeError: it is sparse, quantized, distributed, without data, or not yet initialised.
    """
    if isinstance(tensor, (UninitializedParameter, UninitializedBuffer)):
        raise TypeError(f"{path}: a lazy parameter cannot be saved before its first forward pass")
    plain = tensor.detach()
    if type(plain) is not Tensor:
        raise TypeError(
            f"{path}: {type(plain)} cannot be saved; give a plain tensor (for a DTensor, .full_tensor())"
        )
    dense = plain.layout is torch.strided and not plain.is_meta and not plain.is_quantized
    if not dense or not (plain.is_complex() or plain.dtype in NAMES):
        raise TypeError(
            f"{path}: a tensor of {plain.dtype}, {plain.layout}, on {plain.device} cannot be saved"
        )
    return plain


def identity(tensor: Tensor) -> tuple[Any, ...] | None:
    """Equal for tensors that are the same elements of the same memory; None for those without elements."""
    if tensor.numel() == 0:
        return None
    place = (tensor.device, tensor.untyped_storage().data_ptr(), tensor.storage_offset())
    return (*place, tensor.shape, tensor.stride(), tensor.dtype, tensor.is_conj(), tensor.is_neg())


def encode(tree: Any, root: str = "contents") -> tuple[Any, dict[str, Tensor]]:
    """Take a tree apart into what JSON can say and named tensors.

    A tensor is named by its path ("optimizers.default.state.0.exp_avg"). Tensors that are the same memory
    in the same shape are stored once.

    Args:
        tree: See the module.
        root: What error messages call the top of the tree.

    Raises:
        TypeError: something in it cannot be saved; the message has its path.
        ValueError: it is nested deeper than `MAX_DEPTH`, or contains itself.
    """
    skeleton, tensors, shards = encode_shared(tree, root)
    if shards:
        raise TypeError(f"{root}.{min(shards)}: a shard is saved by all processes that have one, together")
    return skeleton, tensors


def encode_shared(tree: Any, root: str = "contents") -> tuple[Any, dict[str, Tensor], dict[str, Tensor]]:
    """Like `encode`, for a tree with shards, which come last, named in the same way."""
    encoder = _Encoder(root)
    return encoder.value(tree, (), 0), encoder.tensors, encoder.shards


class _Encoder:
    def __init__(self, root: str) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.shards: dict[str, Tensor] = {}
        self._root = root
        self._markers: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._alive: list[Tensor] = []  # an address names a tensor only as long as that lives

    def where(self, path: tuple[Any, ...]) -> str:
        return ".".join([self._root, *map(str, path)])

    def value(self, value: Any, path: tuple[Any, ...], depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise ValueError(f"{self.where(path)[:200]}: nested deeper than {MAX_DEPTH}, or inside itself")
        if isinstance(value, Tensor):
            return self.tensor(value, path)
        if isinstance(value, Shard):
            return self.shard(value, path)
        if isinstance(value, dict):
            return self.dictionary(value, path, depth)
        if type(value) is list:
            return [self.value(item, (*path, i), depth + 1) for i, item in enumerate(value)]
        if type(value) in (tuple, torch.Size):
            return {"$tuple": [self.value(item, (*path, i), depth + 1) for i, item in enumerate(value)]}
        if type(value) is bytes:
            return {
                "$bytes": self.add(
                    torch.frombuffer(bytearray(value), dtype=torch.uint8)
                    if value
                    else torch.empty(0, dtype=torch.uint8),
                    path,
                )
            }
        return encode_scalar(value, self.where(path))

    def dictionary(self, value: dict[Any, Any], path: tuple[Any, ...], depth: int) -> Any:
        items = {key: self.value(item, (*path, key), depth + 1) for key, item in value.items()}
        if all(type(key) is str and not key.startswith("$") for key in items):
            return items
        return {"$dict": [[self.key(key, path, depth + 1), item] for key, item in items.items()]}

    def key(self, key: Any, path: tuple[Any, ...], depth: int) -> Any:
        if type(key) is tuple and depth <= MAX_DEPTH:
            return {"$tuple": [self.key(item, path, depth + 1) for item in key]}
        return encode_scalar(key, f"{self.where(path)}: key {key!r}")

    def tensor(self, value: Tensor, path: tuple[Any, ...]) -> dict[str, Any]:
        plain = check_tensor(value, self.where(path))
        known = identity(plain)
        if known is not None and known in self._markers:
            return self._markers[known]
        self._alive.append(plain)
        marker = self.marker(plain, path)
        if known is not None:
            self._markers[known] = marker
        return marker

    def shard(self, value: Shard, path: tuple[Any, ...]) -> dict[str, Any]:
        rows = value.rows if value.is_saved else value.rows[:0]
        plain = check_tensor(rows, self.where(path)).contiguous()
        known = ("shard", *(identity(plain) or path))
        if known not in self._markers:
            self._alive.append(plain)
            self._markers[known] = {"$tensor": self.add(plain, path, self.shards)}
        return self._markers[known]

    def marker(self, plain: Tensor, path: tuple[Any, ...]) -> dict[str, Any]:
        if plain.dtype in NAMES:
            marker: dict[str, Any] = {"$tensor": self.add(plain, path)}
        else:
            real = torch.view_as_real(plain.resolve_conj())
            marker = {"$tensor": self.add(real, path), "complex": True}
        if is_dense(plain.shape, plain.stride()) and plain.stride() != _row_major(plain.shape):
            # Fused optimizers need their state laid out as the parameter is (channels_last).
            marker["stride"] = list(plain.stride())
        return marker

    def add(self, tensor: Tensor, path: tuple[Any, ...], into: dict[str, Tensor] | None = None) -> str:
        name = stem = ".".join(map(str, path)) or "value"
        count = 1
        while (
            name in self.tensors or name in self.shards or name == "__metadata__"
        ):  # which the format keeps for itself
            count += 1
            name = f"{stem}#{count}"
        (self.tensors if into is None else into)[name] = tensor
        return name


def encode_scalar(value: Any, path: str) -> Any:
    """A value without parts as JSON.

    Raises:
        TypeError: it is of no allowed type.
    """
    if value is None or type(value) in (bool, str):
        return value
    if type(value) is int:
        return value if -(2**63) <= value < 2**63 else {"$int": hex(value)}
    if type(value) is float:  # the bits, since one NaN is not like another
        return value if math.isfinite(value) else {"$float": struct.pack(">d", value).hex()}
    if type(value) in NUMPY_TYPES.values():
        return {"$numpy": [type(value).__name__, value.tobytes().hex()]}
    raise refuse(value, path)


def _row_major(shape: torch.Size) -> tuple[int, ...]:
    strides, step = [], 1
    for length in reversed(shape):
        strides.append(step)
        step *= max(length, 1)
    return tuple(reversed(strides))


def is_dense(shape: torch.Size, stride: tuple[int, ...]) -> bool:
    """Whether these strides are some order of the dimensions, with no gap and no overlap."""
    expected = 1
    for step, length in sorted(
        (step, length) for step, length in zip(stride, shape, strict=True) if length != 1
    ):
        if step != expected:
            return False
        expected *= length
    return True
