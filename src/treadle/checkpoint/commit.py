"""How a checkpoint comes to be, is replaced and goes, so that a death at any moment loses nothing.

A checkpoint is written and synced under a hidden name in the same folder; renaming it to `step-00000500`
is the commit. Hidden names are `.step-00000500.KIND-RANDOM`:

    new    being written; worth nothing until it is renamed
    old    was the checkpoint of this step when the step was saved again: it is renamed aside, the new one
           is renamed in, then it is removed. Between the two renames it is the checkpoint, and `newest`
           takes it for that; so there is no moment without one
    trash  being removed; never read again

All changes happen under the folder's lock, which dies with its process. Whoever holds it and sees a hidden
name is looking at what a dead process left, and tidies up: `new` and `trash` go, `old` goes back to its
place unless there is a valid checkpoint there. Reading takes no lock and changes nothing.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from treadle.checkpoint import files
from treadle.checkpoint.errors import CheckpointError
from treadle.checkpoint.layout import read, read_manifest
from treadle.checkpoint.parts import take_apart, write_parts

MAX_STEP = 10**18
_TRIES = 10  # to find the newest in a folder that changes all the time
_FINAL = re.compile(r"step-(\d{8,19})")
_HIDDEN = re.compile(r"\.step-(\d{8,19})\.(new|old|trash)-[0-9a-f]{16}")


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


def name_of(step: int) -> str:
    """The name of the checkpoint of a step: `step-00000500`.

    Raises:
        ValueError: the step is no whole number from 0 on.
    """
    if type(step) is not int or not 0 <= step < MAX_STEP:
        raise ValueError(f"step is {step!r}; a checkpoint needs a whole number from 0 on")
    return f"step-{step:08d}"


def write(folder: Path | str, step: int, contents: dict[str, Any], score: float | None = None) -> Path:
    """Save a checkpoint; when this returns it is on the disk, and a former one of this step is replaced.

    Args:
        folder: Holds the checkpoints of a run; made if missing.
        step: Optimizer steps done.
        contents: A tree, see `treadle.checkpoint.tree`; "model" is the state dict of the model.
        score: What it is ranked by.

    Returns:
        The folder of the checkpoint.

    Raises:
        TypeError: something cannot be saved; the message has its path.
        CheckpointError: it could not be written; earlier checkpoints are as they were.
    """
    folder, final = Path(folder), Path(folder) / name_of(step)
    parts = take_apart(contents)
    if parts.shards:
        raise TypeError("contents have shards, which are saved by all processes together: see ShardedWriter")
    with committing(folder, step, parts.nbytes) as temporary:
        write_parts(temporary, parts, step, score)
    return final


@contextmanager
def committing(folder: Path, step: int, nbytes: int) -> Iterator[Path]:
    """A new hidden folder for a checkpoint of `nbytes`; it is committed when the body ends, or removed."""
    final = folder / name_of(step)
    try:
        files.make_parents(folder)
        with files.locked(folder):
            tidy(folder)
            _check_space(folder, nbytes)
            temporary = _hidden(folder, step, "new")
            try:
                files.make_folder(temporary)
                yield temporary
                _commit(temporary, final, step)
            except BaseException:
                with suppress(OSError):
                    files.remove_tree(temporary)
                raise
    except OSError as error:
        raise CheckpointError(f"{final}: could not be written: {error}") from error


def _commit(temporary: Path, final: Path, step: int) -> None:
    aside = _hidden(final.parent, step, "old") if os.path.lexists(final) else None
    if aside is not None:
        files.rename(final, aside)
    try:
        files.rename(temporary, final)
    except BaseException:
        if aside is not None:
            with suppress(OSError):
                files.rename(aside, final)
        raise
    files.sync_folder(final.parent)
    if aside is not None:
        with suppress(OSError):  # the new one is safe; the next save tidies up
            files.remove_tree(aside)


def _check_space(folder: Path, nbytes: int) -> None:
    needed = nbytes + nbytes // 64 + (1 << 20)  # and a little for the file system's own blocks
    free = files.free_bytes(folder)
    if free < needed:
        raise CheckpointError(
            f"{folder}: a checkpoint needs {needed:,} bytes, {free:,} are free on this disk"
        )


def _hidden(folder: Path, step: int, kind: str) -> Path:
    return folder / f".{name_of(step)}.{kind}-{secrets.token_hex(8)}"


def _scan(folder: Path) -> Iterator[tuple[int, str, Path]]:
    """Step, kind and path of everything in the folder that has one of our names."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    for name in sorted(names):
        if match := _FINAL.fullmatch(name):
            if name == f"step-{int(match[1]):08d}":
                yield int(match[1]), "final", folder / name
        elif match := _HIDDEN.fullmatch(name):
            yield int(match[1]), match[2], folder / name


def tidy(folder: Path) -> None:
    """Finish or undo what a dead process left; call it under the folder's lock."""
    for step, kind, path in list(_scan(folder)):
        final = folder / name_of(step)
        if kind == "old" and not (os.path.lexists(final) and (_is_valid(final) or not _is_valid(path))):
            unwanted = _hidden(folder, step, "trash")
            if os.path.lexists(final):
                files.rename(final, unwanted)
            files.rename(path, final)
            files.sync_folder(folder)
        else:
            unwanted = path
        if kind != "final":
            with suppress(OSError):
                files.remove_tree(unwanted)


def _is_valid(path: Path) -> bool:
    try:
        read(path)
    except CheckpointError:
        return False
    return True


def list_checkpoints(folder: Path | str) -> list[Entry]:
    """The checkpoints in a folder by step, from their manifests; those without a sound one are left out."""
    entries = []
    for step, kind, path in _scan(Path(folder)):
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
        listed = list(_scan(Path(folder)))
        found, skipped = _newest_of([item for item in listed if item[1] in ("final", "old")])
        if not skipped or listed == list(_scan(Path(folder))):
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


def discard(folder: Path | str, steps: list[int]) -> None:
    """Remove the checkpoints of these steps, in this order; each is gone at once or not at all.

    Raises:
        CheckpointError: one could not be removed.
    """
    folder = Path(folder)
    with _changing(folder):
        for step in steps:
            trash = _hidden(folder, step, "trash")
            files.rename(folder / name_of(step), trash)
            files.remove_tree(trash)


@contextmanager
def _changing(folder: Path) -> Iterator[None]:
    try:
        with files.locked(folder):
            yield
    except OSError as error:
        raise CheckpointError(f"{folder}: an old checkpoint could not be removed: {error}") from error


def rewind(folder: Path | str, step: int) -> list[int]:
    """Remove every checkpoint after `step`, damaged ones too, newest first, and return their steps.

    A run that goes on from an earlier checkpoint calls this, so that nothing of its former future is ever
    taken for its newest state.

    Raises:
        CheckpointError: one could not be removed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return []
    with _changing(folder):
        tidy(folder)
    later = sorted((s for s, kind, _ in _scan(folder) if kind == "final" and s > step), reverse=True)
    discard(folder, later)
    return later
