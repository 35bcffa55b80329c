"""Weights as one file that other programs read."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from treadle.checkpoint import weights_sha256
from treadle.checkpoint.files import write_file
from treadle.checkpoint.tensors import serialize
from treadle.interop.formats import ExportError
from treadle.loading import read_weights

PREFIX = "model."


def export_weights(state: Mapping[str, Any], path: Path) -> str:
    """Write a state dict as a safetensors file, which takes its name once it has been read back and is right.

    Args:
        state: of a model or a task. Where everything is in the task's `model`, that is what is written.
        path: the file; what was there is replaced.

    Returns:
        The `weights_sha256` of what is in the file.

    Raises:
        ExportError: a value is no tensor, or the file reads back differently.
    """
    odd = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if odd:
        raise ExportError(f"export: {odd[0]} is no tensor, and .safetensors holds tensors only")
    if all(name.startswith(PREFIX) for name in state):
        state = {name.removeprefix(PREFIX): value for name, value in state.items()}
    expected = weights_sha256(state)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp{path.suffix}")
    try:
        write_file(temporary, serialize(state))
        if weights_sha256(read_weights(temporary)[0]) != expected:
            raise ExportError(f"export: {path} does not read back as it was written")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return expected
