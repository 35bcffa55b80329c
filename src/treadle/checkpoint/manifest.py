"""The manifest of a checkpoint: what it is, and the size and hash of each of its files."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from treadle.checkpoint.decode import decode
from treadle.checkpoint.errors import CheckpointError
from treadle.checkpoint.tree import encode_scalar

MAX_STATE = 256 << 20  # bytes of state.json
FORMAT = 2
"""The newest; 2 has shards, and what has none is written as 1, which older ones read."""
MANIFEST = "manifest.json"
MODEL, TRAINING, STATE = "model.safetensors", "training.safetensors", "state.json"
FILES = (MODEL, TRAINING, STATE)
MAX_MANIFEST = 1 << 20  # bytes


def shard_name(name: str, rank: int, world_size: int) -> str:
    """The file of the rows that one process has: model.shard-1-of-2.safetensors for rank 0 of 2."""
    return name.replace(".", f".shard-{rank + 1}-of-{world_size}.", 1)


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` says.

    Attributes:
        step: Optimizer steps done.
        score: What the checkpoint is ranked by, if it was given.
        version: The Treadle that wrote it.
        files: For each file its size in bytes and its SHA-256 in hexadecimal.
        shards: How many processes wrote their rows each for itself; 0 where one wrote everything.
    """

    step: int
    score: float | None
    version: str
    files: Mapping[str, tuple[int, str]]

    @property
    def shards(self) -> int:
        """See the class."""
        return (len(self.files) - len(FILES)) // 2

    def to_bytes(self) -> bytes:
        """The file, with a checksum over everything else in it."""
        fields = {
            "format": 2 if self.shards else 1,
            "step": self.step,
            "score": encode_scalar(self.score, "score"),
            "version": self.version,
            "files": {name: {"size": size, "sha256": digest} for name, (size, digest) in self.files.items()},
        }
        canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)
        fields["checksum"] = hashlib.sha256(canonical.encode()).hexdigest()
        return (json.dumps(fields, indent=1, allow_nan=False) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Read the file back.

        Raises:
            CheckpointError: it is damaged, or of a newer format.
        """
        try:
            fields = json.loads(data)
            newer = isinstance(fields["format"], int) and fields["format"] > FORMAT
            manifest = None if newer else cls._from_fields(**fields)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, CheckpointError) as error:
            raise CheckpointError(f"{MANIFEST}: cannot be read: {type(error).__name__}: {error}") from error
        if manifest is None:
            raise CheckpointError(
                f"{MANIFEST}: a newer Treadle wrote format {fields['format']}; this one reads up to {FORMAT}"
            )
        # Comparing the whole text covers the checksum, and every byte that a parser would overlook.
        if manifest.to_bytes() != data:
            raise CheckpointError(f"{MANIFEST}: its checksum does not match")
        return manifest

    @classmethod
    def _from_fields(
        cls, *, format: int, step: int, score: Any, version: str, files: dict[str, Any], checksum: str
    ) -> Manifest:
        count = (len(files) - len(FILES)) // 2
        shards = {shard_name(name, rank, count) for name in (MODEL, TRAINING) for rank in range(count)}
        if set(files) != {*FILES, *shards}:
            raise ValueError(
                f"lists the files {sorted(files)}; allowed are {sorted(FILES)} and every process's shards"
            )
        sizes = {name: (entry["size"], entry["sha256"]) for name, entry in files.items()}
        if any(
            type(number) is not int or not 0 <= number < 2**63
            for number in (step, *(s for s, _ in sizes.values()))
        ):
            raise ValueError("a step or a size is no whole number")
        if not all(isinstance(text, str) for text in (version, checksum, *(d for _, d in sizes.values()))):
            raise ValueError("a version or a hash is no text")
        score = decode(score, {})
        if score is not None and type(score) is not float:
            raise ValueError(f"score is {score!r}")
        return cls(step=step, score=score, version=version, files=sizes)


@cache
def treadle_version() -> str:
    """The version of the Treadle that is running."""
    return importlib.metadata.version("treadle")
