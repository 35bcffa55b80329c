"""Saving during a run: which checkpoints are kept, and writing them while training goes on."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from treadle.checkpoint.commit import discard, write
from treadle.checkpoint.errors import CheckpointError
from treadle.checkpoint.finding import list_checkpoints
from treadle.checkpoint.names import name_of
from treadle.checkpoint.snapshot import Snapshot, snapshot


@dataclass(frozen=True)
class Commit:
    """A checkpoint that has just become durable.

    Attributes:
        path: Its folder.
        step: Optimizer steps done.
        score: What it is ranked by, if that was given.
        seconds: How long writing it took.
    """

    path: Path
    step: int
    score: float | None
    seconds: float


class Writer:
    """Saves the checkpoints of a run and removes those no longer wanted. This one writes before it returns.

    The last `keep_last` by step and the best `keep_best` by score stay; the one saved last always does. Older
    ones go only after the new one is durable. Scores are read from the checkpoints themselves, so a resumed
    run goes on with the same ranking. Of equal scores the earlier is better; NaN is never among the best.

    Args:
        folder: Holds the checkpoints of this run.
        keep_last: How many of the latest to keep; None keeps all.
        keep_best: How many of the best to keep besides.
        mode: Whether a "min" or a "max" score is best.
        on_commit: Called with a `Commit` in the thread that wrote, after the commit and before older ones go.

    Raises:
        ValueError: a number or the mode is not allowed.
    """

    def __init__(
        self,
        folder: Path | str,
        keep_last: int | None = 3,
        keep_best: int = 1,
        mode: str = "min",
        on_commit: Callable[[Commit], None] | None = None,
    ) -> None:
        if keep_last is not None and (type(keep_last) is not int or keep_last < 1):
            raise ValueError(
                f"keep_last is {keep_last!r}; allowed are whole numbers from 1 on, or None for all"
            )
        if type(keep_best) is not int or keep_best < 0:
            raise ValueError(f"keep_best is {keep_best!r}; allowed are whole numbers from 0 on")
        if mode not in ("min", "max"):
            raise ValueError(f"mode is {mode!r}; allowed are 'min' and 'max'")
        self.folder = Path(folder)
        self.keep_last = keep_last
        self.keep_best = keep_best
        self.mode = mode
        self.last: Commit | None = None
        self._on_commit = on_commit
        self._closed = False

    def save(self, step: int, contents: dict[str, Any], score: float | None = None) -> None:
        """Save a checkpoint; see `write`.

        Raises:
            TypeError: something cannot be saved; the message has its path.
            CheckpointError: it could not be written (earlier ones are as they were), or an old one could not
                be removed.
        """
        self._check_open()
        self._write(step, contents, score)

    def wait(self) -> None:
        """Return when everything handed to `save` is durable.

        Raises:
            CheckpointError: a save failed.
        """

    def close(self) -> None:
        """`wait`, and take no more; calling it again does nothing."""
        self._closed = True
        self.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError(f"{self.folder}: this writer is closed")

    def _write(self, step: int, contents: dict[str, Any], score: float | None) -> None:
        start = time.monotonic()
        path = self._write_files(step, contents, score)
        self.last = Commit(path, step, score, time.monotonic() - start)
        if self._on_commit is not None:
            self._on_commit(self.last)
        if self.keep_last is not None:
            discard(self.folder, self._superseded(step, self.keep_last))

    def _write_files(self, step: int, contents: dict[str, Any], score: float | None) -> Path:
        return write(self.folder, step, contents, score)

    def _superseded(self, saved: int, keep_last: int) -> list[int]:
        entries = list_checkpoints(self.folder)
        sign = 1.0 if self.mode == "min" else -1.0
        ranked = sorted(
            (sign * entry.score, entry.step)
            for entry in entries
            if entry.score is not None and not math.isnan(entry.score)
        )
        kept = {saved, *(entry.step for entry in entries[-keep_last:])}
        kept |= {step for _, step in ranked[: self.keep_best]}
        return [entry.step for entry in entries if entry.step not in kept]


class BackgroundWriter(Writer):
    """Writes while training goes on: `save` copies the contents and returns.

    At most one save is under way; the next waits for it. A failure is raised by the next `save`, `wait` or
    `close`, once, with the original error as its cause; a `save` that raises it has not saved, and may be
    called again. A process that ends with a save under way finishes that first.
    """

    _thread: threading.Thread | None = None
    _failure: tuple[int, BaseException] | None = None

    def save(self, step: int, contents: dict[str, Any], score: float | None = None) -> None:
        """Copy the contents (unless they are a `Snapshot`) and have them saved.

        Raises:
            TypeError: something cannot be saved; the message has its path.
            CheckpointError: the save before this one failed.
        """
        self._check_open()
        name_of(step)
        self.wait()
        copied = contents if isinstance(contents, Snapshot) else snapshot(contents)
        # A thread for each save, none in between: a main thread that crashes never leaves one waiting.
        self._thread = threading.Thread(
            target=self._run, args=(step, copied, score), name="treadle-checkpoint", daemon=False
        )
        self._thread.start()

    def wait(self) -> None:
        """Return when the save under way is durable.

        Raises:
            CheckpointError: it failed.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._failure is not None:
            (step, error), self._failure = self._failure, None
            raise CheckpointError(f"saving step {step} in the background failed: {error}") from error

    def _run(self, step: int, contents: Snapshot, score: float | None) -> None:
        try:
            self._write(step, contents, score)
        except BaseException as error:  # noqa: BLE001 - raised in the training thread, by wait
            self._failure = (step, error)
