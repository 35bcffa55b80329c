"""One number for the weights of a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from treadle.checkpoint.tensors import pieces
from treadle.checkpoint.tree import check_tensor


def weights_sha256(state_dict: Mapping[str, Any]) -> str:
    """The SHA-256 of a model's tensors, in hexadecimal; equal exactly if names, types, shapes and bits are.

    The names are sorted by code point. Each tensor adds one line of JSON, `["fc.weight","float32",[10,64]]`
    and a newline (no spaces, characters outside ASCII escaped), then its elements in row-major order as
    little-endian bytes. Device, strides and tied storage make no difference. Values that are no tensors
    are left out. At most 16 MiB are copied at a time; reading a device's memory waits for it.

    Raises:
        TypeError: a tensor is not dense.
    """
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        value = state_dict[name]
        if not isinstance(value, Tensor):
            continue
        tensor = check_tensor(value, name)
        line = [name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
        digest.update(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        for piece in pieces(tensor):
            digest.update(piece)
    return digest.hexdigest()
