"""Checkpoints that several processes write together, each what it has, committed as one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from treadle.checkpoint.commit import committing
from treadle.checkpoint.errors import CheckpointError
from treadle.checkpoint.names import name_of
from treadle.checkpoint.parts import Parts, take_apart, write_parts, write_shards
from treadle.checkpoint.writer import Writer


class _KnownError(CheckpointError):
    """One that all processes have heard of."""


class ShardedWriter(Writer):
    """Every process calls `save` with its own shards; rank 0 adds the rest and commits, all in one rename.

    The folder must be one that all processes see. Nothing is copied first, so all wait until it is on the
    disk; each has a part of it to write only. What fails on one process fails on all of them.

    Args:
        folder, **options: see `Writer`.
        gather: gives every process's value to all, by rank.
        rank, world_size: of this process, and of how many.
    """

    def __init__(
        self,
        folder: Path | str,
        gather: Callable[[Any], list[Any]],
        rank: int,
        world_size: int,
        **options: Any,
    ) -> None:
        super().__init__(folder, **options)
        self._gather = gather
        self._rank, self._world_size = rank, world_size

    def _write(self, step: int, contents: dict[str, Any], score: float | None) -> None:
        if self._rank == 0:
            super()._write(step, contents, score)
            return
        parts = take_apart(contents)
        self._gather(parts.nbytes)
        temporary = self._agree()[0]
        self._agree(*self._write_shards(Path(temporary), parts))
        self._agree()

    def _write_files(self, step: int, contents: dict[str, Any], score: float | None) -> Path:
        parts = take_apart(contents)
        total = sum(self._gather(parts.nbytes))
        try:
            with committing(self.folder, step, total) as temporary:
                self._agree(str(temporary))
                written = self._agree(*self._write_shards(temporary, parts))
                shards = {name: entry for files in written for name, entry in files.items()}
                write_parts(temporary, parts, step, score, shards)
        except _KnownError:
            raise
        except CheckpointError as error:
            self._agree(None, error)  # whatever the others wait for, this is the answer
        self._agree()
        return self.folder / name_of(step)

    def _write_shards(self, temporary: Path, parts: Parts) -> tuple[Any, CheckpointError | None]:
        try:
            return write_shards(temporary, parts, self._rank, self._world_size), None
        except OSError as error:
            return None, CheckpointError(f"{temporary}: rank {self._rank} could not write its shard: {error}")

    def _agree(self, value: Any = None, error: CheckpointError | None = None) -> list[Any]:
        """Every process's value, or the first error of any, raised on all."""
        told = self._gather([value, None if error is None else str(error)])
        for _, problem in told:
            if problem is not None:
                raise _KnownError(problem)
        return [value for value, _ in told]
