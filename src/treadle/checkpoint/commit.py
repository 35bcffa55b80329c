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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from treadle.checkpoint import files
from treadle.checkpoint.errors import CheckpointError
from treadle.checkpoint.layout import read
from treadle.checkpoint.names import hidden, name_of, scan
from treadle.checkpoint.parts import take_apart, write_parts


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
            temporary = hidden(folder, step, "new")
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
    aside = hidden(final.parent, step, "old") if os.path.lexists(final) else None
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


def tidy(folder: Path) -> None:
    """Finish or undo what a dead process left; call it under the folder's lock."""
    for step, kind, path in list(scan(folder)):
        final = folder / name_of(step)
        if kind == "old" and not (os.path.lexists(final) and (_is_valid(final) or not _is_valid(path))):
            unwanted = hidden(folder, step, "trash")
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


def discard(folder: Path | str, steps: list[int]) -> None:
    """Remove the checkpoints of these steps, in this order; each is gone at once or not at all.

    Raises:
        CheckpointError: one could not be removed.
    """
    folder = Path(folder)
    with _changing(folder):
        for step in steps:
            trash = hidden(folder, step, "trash")
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
    later = sorted((s for s, kind, _ in scan(folder) if kind == "final" and s > step), reverse=True)
    discard(folder, later)
    return later
