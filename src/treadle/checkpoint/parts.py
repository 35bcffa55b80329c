"""The contents of a checkpoint taken apart into its files, and how they are written; `layout` reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from treadle.checkpoint import files
from treadle.checkpoint.errors import CheckpointError
from treadle.checkpoint.manifest import (
    MANIFEST,
    MAX_STATE,
    MODEL,
    STATE,
    TRAINING,
    Manifest,
    shard_name,
    treadle_version,
)
from treadle.checkpoint.tensors import header_of, serialize
from treadle.checkpoint.tree import encode_shared

MANIFEST_ROOM = 1 << 16  # bytes


@dataclass(frozen=True)
class Parts:
    """The contents of a checkpoint, taken apart into what each file holds."""

    model: Mapping[str, Tensor]
    training: Mapping[str, Tensor]
    state: bytes
    shards: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    """The rows that this process has, by the file that would hold the whole tensors."""

    @property
    def nbytes(self) -> int:
        """What the files will take, in bytes."""
        tensors = sum(
            len(header_of(group)) + sum(tensor.numel() * tensor.element_size() for tensor in group.values())
            for group in (self.model, self.training, *self.shards.values())
        )
        return tensors + len(self.state) + MANIFEST_ROOM


def take_apart(contents: dict[str, Any]) -> Parts:
    """Sort the contents into tensors of the model, other tensors, and everything else.

    Raises:
        TypeError: something cannot be saved; the message has its path.
        CheckpointError: there are too many plain values.
    """
    if not isinstance(contents, dict):
        raise TypeError(f"contents: {type(contents)}; a checkpoint needs a dict")
    rest = {name: value for name, value in contents.items() if name != "model"}
    skeleton, training, training_shards = encode_shared(rest)
    state: dict[str, Any] = {"rest": skeleton}
    model: Mapping[str, Tensor] = {}
    model_shards: Mapping[str, Tensor] = {}
    if "model" in contents:
        state["model"], model, model_shards = encode_shared(contents["model"], "contents.model")
    text = json.dumps(state, separators=(",", ":"), allow_nan=False).encode()
    if len(text) > MAX_STATE:
        raise CheckpointError(f"{STATE}: {len(text)} bytes of plain values, at most {MAX_STATE}; use tensors")
    shards = {MODEL: model_shards, TRAINING: training_shards} if model_shards or training_shards else {}
    return Parts(model, training, text, shards)


def write_shards(folder: Path, parts: Parts, rank: int, world_size: int) -> dict[str, tuple[int, str]]:
    """Write and sync the rows that this process has; returns size and SHA-256 of the files by name."""
    written = {}
    for name, tensors in parts.shards.items():
        own = shard_name(name, rank, world_size)
        written[own] = files.write_file(folder / own, serialize(tensors))
    files.sync_folder(folder)
    return written


def write_parts(
    folder: Path, parts: Parts, step: int, score: float | None, shards: Mapping[str, tuple[int, str]] = {}
) -> None:
    """Write and sync the four files, and the folder, which must be there and hold these shards alone."""
    written = {
        MODEL: files.write_file(folder / MODEL, serialize(parts.model)),
        TRAINING: files.write_file(folder / TRAINING, serialize(parts.training)),
        STATE: files.write_file(folder / STATE, [parts.state]),
    }
    manifest = Manifest(step, score, treadle_version(), written | dict(shards))
    files.write_file(folder / MANIFEST, [manifest.to_bytes()])
    files.sync_folder(folder)
