"""The record of one run: a folder with its configuration, its metrics, its events and its checkpoints."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from treadle.runs import files, folders
from treadle.runs.errors import RunError
from treadle.runs.files import Lock
from treadle.runs.manifest import FORMAT, FileManifest, Manifest
from treadle.runs.media import Medium
from treadle.runs.memory import MemoryStore
from treadle.runs.reader import CHECKPOINTS, CONFIG, ENVIRONMENT, METRICS, RunReader
from treadle.runs.store import Store
from treadle.runs.tails import Curves, Point
from treadle.runs.writer import WritableStore


class Run(RunReader):
    """What one run did. `create` begins one, `reopen` goes on with one, `open` only looks.

    The folder holds run.json (id, name, status, ...), config.json, environment.json, metrics.sqlite and
    checkpoints/. Each JSON file is replaced as a whole, each change of the metrics is one transaction, and
    one process at a time may write, so a kill at any moment leaves a run that can be read and continued.
    All values are read when asked for: a run that another process writes shows what that has written.

    Use it as a context manager, or call `close`, to let others write; reading goes on working after it.
    """

    @classmethod
    def create(
        cls,
        path: Path | str | None,
        *,
        name: str = "run",
        config: Mapping[str, Any] | None = None,
        environment: Mapping[str, Any] | None = None,
        setup: Mapping[str, Any] | None = None,
    ) -> Self:
        """Begin a run in a new folder: `path`, or path-2, path-3, ... where it is taken (see `run.path`).

        With None the run is kept in memory: all of it works, and `run.path` is None.

        Raises:
            RunError: `config`, `environment` or `setup` hold something that JSON cannot, or the folder
                cannot be made.
        """
        environment = environment or {}
        documents = {
            CONFIG: files.plain(config or {}, "config"),
            ENVIRONMENT: files.plain(environment, "environment"),
        }
        fields = _first_fields(name, environment) | {"setup": files.plain(setup or {}, "setup")}
        if path is None:
            run = cls(None, Manifest(fields), MemoryStore())
            run._documents = {key: files.decode(files.encode(value, key)) for key, value in documents.items()}
            return run
        try:
            return cls._create_folder(Path(os.path.abspath(path)), fields, documents)
        except OSError as error:
            raise RunError(path, f"a run cannot be made here: {error.strerror}") from error

    @classmethod
    def _create_folder(cls, path: Path, fields: dict[str, Any], documents: dict[str, Any]) -> Self:
        # Built under a hidden name and renamed when whole: nobody ever sees half a run.
        temporary = folders.temporary_sibling(path)
        lock = None
        try:
            lock = Lock(temporary)
            for file_name, document in documents.items():
                files.write_json(temporary / file_name, document)
            (temporary / CHECKPOINTS).mkdir()
            WritableStore(temporary / METRICS).close()
            files.write_json(temporary / folders.RUN_FILE, {**fields, "family": path.name})
            path = folders.publish(temporary, path)
        except BaseException:
            if lock is not None:
                lock.release()
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        return cls(path, FileManifest(path), WritableStore(path / METRICS), lock)

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Look at a run, whether it goes on, is finished or was killed. Changes nothing on disk.

        Raises:
            RunError: there is no run, it is damaged, or a newer version of Treadle wrote it.
        """
        folder = Path(os.path.abspath(path))
        return cls(folder, FileManifest(folder), Store(folder / METRICS))

    @classmethod
    def reopen(cls, path: Path | str) -> Self:
        """Open a run to write on: then `rewind` to the step of the checkpoint, and go on.

        Raises:
            RunError: as for `open`, or another process is writing this run.
        """
        run = cls.open(path)
        assert run.path is not None
        if not (run.path / METRICS).is_file():
            raise RunError(run.path / METRICS, "is missing")
        lock = Lock(run.path)
        try:
            for leftover in run.path.glob(".*.tmp"):
                leftover.unlink(missing_ok=True)
            return cls(run.path, FileManifest(run.path), WritableStore(run.path / METRICS), lock)
        except BaseException:
            lock.release()
            raise

    def append_steps(self, points: Iterable[Point]) -> None:
        """Record (name, step, value) points in one transaction; any number, from a list or an iterator.

        Raises:
            RunError: the run was opened for reading, or the disk is full.
        """
        self._writer().append_steps(points)

    def append_curves(self, curves: Curves) -> None:
        """Record steps and values by name in one transaction: `append_steps` for many points at once.

        Raises:
            RunError: the run was opened for reading, or the disk is full.
        """
        self._writer().append_curves(curves)

    def append_epoch(self, epoch: int, step: int, values: Mapping[str, float]) -> None:
        """Record the values of a finished epoch, whose last step is `step`, in one transaction.

        For an epoch that is there already the values are added to its row.
        """
        self._writer().append_epoch(epoch, step, values)

    def event(self, kind: str, step: int, **details: Any) -> None:
        """Record that something happened now."""
        self._writer().add_event(kind, step, details)

    def add_media(self, media: Iterable[Medium]) -> None:
        """Record texts, pictures or histograms; one of the same name, kind and step is replaced.

        Raises:
            RunError: the run was opened for reading, or the disk is full.
        """
        self._writer().add_media(media)

    def update(self, **fields: Any) -> None:
        """Change fields of run.json at once: status, reason, step, epoch, weights_sha256, seed, or your own.

        A status other than running also sets `ended` to now; running clears it.

        Raises:
            RunError: there is no such status, or a field cannot be changed (id, created, format, family).
        """
        self._writer()
        self._manifest.update(fields)

    def counts(self) -> dict[str, int]:
        """How many points each series has; kept in a checkpoint, for `rewind`."""
        return self._writer().counts()

    def rewind(self, step: int, counts: Mapping[str, int] | None = None) -> None:
        """Drop what was recorded after a step, in one transaction; -1 drops everything.

        A resume calls it with the step of its checkpoint and what `counts` said then, so no point is
        doubled: also none of the same step that came after the checkpoint. It leaves run.json alone: call
        `update` with the status, step and epoch as of the checkpoint.
        """
        self._writer().rewind(step, counts)

    def flush(self) -> None:
        """Make what was appended so far survive a power cut; call it before a checkpoint is committed."""
        self._writer().flush()

    def close(self) -> None:
        """Stop writing and let others write. Reading still works; closing twice does nothing."""
        with self._guard:
            if self.path is None or not isinstance(self._store, WritableStore):
                return
            store, self._store = self._store, Store(self.path / METRICS)
            store.close()
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _writer(self) -> WritableStore:
        store = self._store
        if not isinstance(store, WritableStore):
            raise RunError(self.path or "", "was opened for reading; use Run.reopen to write on")
        return store


def _first_fields(name: str, environment: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "id": secrets.token_hex(4),
        "name": str(name),
        "status": "running",
        "reason": None,
        "step": 0,
        "epoch": 0,
        "weights_sha256": None,
        "seed": environment.get("seed"),
        "created": time.time(),
        "ended": None,
    }
