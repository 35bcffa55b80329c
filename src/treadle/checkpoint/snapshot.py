"""A copy of a state that training can no longer change."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from treadle.checkpoint.shard import Shard
from treadle.checkpoint.tree import MAX_DEPTH, check_tensor, encode_scalar, identity


class Snapshot(dict[str, Any]):
    """The contents of a checkpoint, every tensor a copy on the CPU; `Writer.save` need not copy it again."""


def snapshot(contents: dict[str, Any]) -> Snapshot:
    """Copy a tree for saving: tensors to the CPU without their graph, containers anew.

    Tensors that are the same memory in the same shape (tied weights) are copied once and stay tied. Copying
    from a device waits for it: the values must be those of this moment.

    Raises:
        TypeError: something in it cannot be saved; the message has its path.
    """
    return Snapshot(_copy(contents, "contents", 0, {}))


def _copy(value: Any, path: str, depth: int, copies: dict[tuple[Any, ...], tuple[Tensor, Tensor]]) -> Any:
    if depth > MAX_DEPTH:
        raise ValueError(f"{path[:200]}: nested deeper than {MAX_DEPTH}, or inside itself")
    if isinstance(value, Tensor):
        return _copy_tensor(check_tensor(value, path), copies)
    if isinstance(value, Shard):
        return Shard(_copy_tensor(check_tensor(value.rows, path), copies), value.is_saved)
    if isinstance(value, dict):
        return {key: _copy(item, f"{path}.{key}", depth + 1, copies) for key, item in value.items()}
    if type(value) in (list, tuple, torch.Size):
        items = [_copy(item, f"{path}.{index}", depth + 1, copies) for index, item in enumerate(value)]
        return items if type(value) is list else tuple(items)
    if type(value) is not bytes:
        encode_scalar(value, path)
    return value


def _copy_tensor(tensor: Tensor, copies: dict[tuple[Any, ...], tuple[Tensor, Tensor]]) -> Tensor:
    known = identity(tensor)
    if known is None:
        return tensor.to("cpu", copy=True)
    if known not in copies:
        # The original is kept beside its copy, since its address names it only as long as it lives.
        copies[known] = (tensor, tensor.to("cpu", copy=True))
    return copies[known][1]
