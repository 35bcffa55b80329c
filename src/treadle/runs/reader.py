"""What can be read from a run."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from treadle.runs import files
from treadle.runs.chunks import Buckets, Series
from treadle.runs.files import Lock
from treadle.runs.history import Duration, History
from treadle.runs.manifest import Manifest
from treadle.runs.media import Medium
from treadle.runs.store import Clock, EpochRow, Event, Store

METRICS = "metrics.sqlite"
CONFIG = "config.json"
ENVIRONMENT = "environment.json"
CHECKPOINTS = "checkpoints"
_STEP = re.compile(r"step-([0-9]{1,18})")


class RunReader:
    """The reading side of a `Run`. All values are read when asked for, so they are as new as the disk."""

    def __init__(self, path: Path | None, manifest: Manifest, store: Store, lock: Lock | None = None) -> None:
        self.path = path
        self._manifest = manifest
        self._store = store
        self._lock = lock
        self._documents: dict[str, dict[str, Any]] = {}
        self._guard = threading.RLock()

    # ---- who it is and how it stands -------------------------------------------------------------------

    @property
    def fields(self) -> dict[str, Any]:
        """All of run.json."""
        return self._manifest.read()

    @property
    def id(self) -> str:
        """Eight letters and digits that no other run has."""
        return str(self.fields["id"])

    @property
    def name(self) -> str:
        """What the user called it."""
        return str(self.fields["name"])

    @property
    def status(self) -> str:
        """Running, finished, stopped, failed or interrupted; also interrupted if its process is gone."""
        status = str(self.fields["status"])
        if status == "running" and self._lock is None and self.path is not None:
            return "interrupted" if files.is_locked(self.path) is False else "running"
        return status

    @property
    def reason(self) -> str | None:
        """Why it ended."""
        return self._manifest.read_text("reason")

    @property
    def step(self) -> int:
        """Optimizer steps done, as of the last `update`."""
        return int(self.fields["step"])

    @property
    def epoch(self) -> int:
        """Epochs done, as of the last `update`."""
        return int(self.fields["epoch"])

    @property
    def weights_sha256(self) -> str | None:
        """The fingerprint of the final model, once there is one."""
        return self._manifest.read_text("weights_sha256")

    @property
    def created(self) -> float:
        """When it began, in seconds since 1970."""
        return float(self.fields["created"])

    @property
    def ended(self) -> float | None:
        """When it ended, in seconds since 1970; None while it goes on."""
        ended = self.fields.get("ended")
        return None if ended is None else float(ended)

    @property
    def config(self) -> dict[str, Any]:
        """What was given to run, if anything: `Trainer.fit(config=...)`, or the configuration file."""
        return self._document(CONFIG)

    @property
    def setup(self) -> dict[str, Any]:
        """What was run: trainer, task, optimizers, schedules, data; empty in runs before it was recorded."""
        setup = self.fields.get("setup")
        return setup if isinstance(setup, dict) else {}

    @property
    def environment(self) -> dict[str, Any]:
        """What it ran on."""
        return self._document(ENVIRONMENT)

    # ---- what it measured ------------------------------------------------------------------------------

    @property
    def history(self) -> History:
        """A column for each metric, a row for each finished epoch."""
        return History(self._store.epochs())

    def epoch_rows(self) -> list[EpochRow]:
        """The history by epoch: only the values that each epoch has."""
        return self._store.epochs()

    @property
    def durations(self) -> list[Duration]:
        """How long each epoch took."""
        return self.history.durations()

    def names(self) -> list[str]:
        """The series recorded per step."""
        return self._store.names()

    def series(self, name: str) -> Series:
        """All points of a series: `steps` (int64) and `values` (float64), by step.

        Raises:
            KeyError: there is no such series.
        """
        return self._store.series(name)

    def points_at(self, step: int) -> list[tuple[str, float]]:
        """The name and value of every point of one step."""
        return self._store.points_at(step)

    def downsample(self, name: str, buckets: int) -> Buckets:
        """A series as at most `buckets` buckets with minimum, maximum and mean; fast however long it is.

        Raises:
            KeyError: there is no such series.
            ValueError: `buckets` is not positive.
        """
        return self._store.downsample(name, buckets)

    def media(
        self,
        kind: str | None = None,
        name: str | None = None,
        step: int | None = None,
        newest: bool = False,
    ) -> list[Medium]:
        """Texts, pictures and histograms, by step.

        Args:
            kind: "text", "picture" or "histogram" alone.
            name: those of one name alone.
            step: those of one step alone.
            newest: of each name the newest alone.
        """
        return self._store.media(kind, name, step, newest)

    @property
    def events(self) -> list[Event]:
        """What happened, in order."""
        return self._store.events()

    @property
    def clock(self) -> Clock:
        """When which step was reached: `numpy.interp(step, clock.steps, clock.times)`."""
        return self._store.clock()

    @property
    def checkpoint_folder(self) -> Path | None:
        """Where checkpoints go; None for a run in memory."""
        return None if self.path is None else self.path / CHECKPOINTS

    @property
    def checkpoints(self) -> list[Path]:
        """The checkpoints there are, by step. Whether they are whole, their manifests say."""
        folder = self.checkpoint_folder
        if folder is None or not folder.is_dir():
            return []
        found = [(int(match[1]), path) for path in folder.iterdir() if (match := _STEP.fullmatch(path.name))]
        return [path for _, path in sorted(found) if path.is_dir() and not path.is_symlink()]

    def plot(self, names: Iterable[str] | None = None, logarithmic: bool = False) -> Any:
        """The curves as a matplotlib `Figure`: show it in a notebook, or `figure.savefig("run.png")`.

        Args:
            names: which curves; all but the durations if left out. Those of one metric share axes.
            logarithmic: whether values are on a log scale.

        Raises:
            KeyError: there is no such curve.
            ImportError: matplotlib is not installed.
        """
        from treadle.runs.shown import figure_of

        return figure_of(self, names, logarithmic)

    def _repr_html_(self) -> str:
        from treadle.runs.shown import html_of

        return html_of(self)

    def __repr__(self) -> str:
        where = "in memory" if self.path is None else str(self.path)
        return f"<Run {self.name!r} {self.id} {self.status} at step {self.step}, {where}>"

    def _document(self, file_name: str) -> dict[str, Any]:
        if file_name not in self._documents:
            assert self.path is not None
            self._documents[file_name] = files.read_json(self.path / file_name)
        return self._documents[file_name]
