"""Which checkpoints a folder has, and the newest of them that is sound. Reading takes no lock."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from treadle.checkpoint.errors import CheckpointError
from treadle.checkpoint.layout import read, read_manifest
from treadle.checkpoint.names import scan

_TRIES = 10  # to find the newest in a folder that changes all the time


@dataclass(frozen=True)
class Entry:
    """A checkpoint in a folder, by its manifest alone: path, step, and score if one was given."""

    path: Path
    step: int
    score: float | None


@dataclass(frozen=True)
class Found:
    """What `newest` found.

    Attributes:
        path: Its folder.
        step: Optimizer steps done.
        contents: See `read`.
        skipped: Newer ones that could not be used, each with the reason.
    """

    path: Path
    step: int
    contents: dict[str, Any] = field(repr=False)
    skipped: list[tuple[Path, str]]


def list_checkpoints(folder: Path | str) -> list[Entry]:
    """The checkpoints in a folder by step, from their manifests; those without a sound one are left out."""
    entries = []
    for step, kind, path in scan(Path(folder)):
        if kind == "final":
            with suppress(CheckpointError):
                manifest = read_manifest(path)
                if manifest.step == step:
                    entries.append(Entry(path, step, manifest.score))
    return sorted(entries, key=lambda entry: entry.step)


def newest(folder: Path | str) -> Found | None:
    """Load the checkpoint with the highest step that is valid; None if nothing was ever committed here.

    Raises:
        CheckpointError: there are checkpoints, and none is valid; the message has every reason.
    """
    found, skipped = None, list[tuple[Path, str]]()
    for _ in range(_TRIES):
        listed = list(scan(Path(folder)))
        found, skipped = _newest_of([item for item in listed if item[1] in ("final", "old")])
        if not skipped or listed == list(scan(Path(folder))):
            break  # nothing was replaced or removed by a run that saves while we read
    if found is not None:
        return found
    if skipped:
        reasons = "\n".join(f"  {reason}" for _, reason in skipped)
        raise CheckpointError(f"{folder}: no checkpoint here can be used:\n{reasons}")
    return None


def _newest_of(candidates: list[tuple[int, str, Path]]) -> tuple[Found | None, list[tuple[Path, str]]]:
    """The newest valid one, and those before it that are not, with the reasons."""
    skipped: list[tuple[Path, str]] = []
    for step, _, path in sorted(candidates, key=lambda item: (-item[0], item[1])):
        try:
            _check_step(path, step)
            return Found(path, step, read(path), skipped), skipped
        except CheckpointError as error:
            skipped.append((path, str(error)))
    return None, skipped


def _check_step(path: Path, step: int) -> None:
    claimed = read_manifest(path).step
    if claimed != step:
        raise CheckpointError(f"{path}: manifest.json: it is the checkpoint of step {claimed}")
