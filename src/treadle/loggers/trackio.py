"""Everything as trackio keeps it."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from treadle.log import Point
from treadle.loggers.base import Begin, Logger
from treadle.loggers.ledger import Ledger
from treadle.runs.media import Medium


class TrackioLogger(Logger):
    """Log to trackio's database on this machine (the environment variable TRACKIO_DIR says where).

    Look with `trackio show`. The run is NAME-ID there. A run that goes on goes on as the same one; of what
    it repeats nothing is logged again.

    Args:
        project: the project's name.
        options: see `Logger`.
    """

    package = "trackio"

    def __init__(self, project: str = "treadle", **options: Any) -> None:
        super().__init__(**options)
        self.project = project
        self._module: Any = None
        self._run: Any = None
        self._ledger = Ledger(None)

    def open(self, begin: Begin) -> None:
        """Begin or go on, without what watches the machine."""
        self._module = importlib.import_module("trackio")
        self._ledger = Ledger(None if begin.folder is None else begin.folder / ".trackio-ledger.json")
        self._run = self._module.init(
            self.project,
            name=f"{begin.name}-{begin.id}",
            config=begin.hyperparameters,
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def write_points(self, points: Sequence[Point]) -> None:
        """A row for each step."""
        fresh = self._ledger.fresh(points)
        rows: dict[int, dict[str, float]] = {}
        for name, step, value in fresh:
            rows.setdefault(step, {})[name] = value
        for step, row in rows.items():
            self._run.log(row, step=step)
        self._ledger.note(fresh)

    def write_medium(self, medium: Medium) -> None:
        """What was not logged before."""
        if self._ledger.is_fresh(medium.kind, medium.name, medium.step):
            super().write_medium(medium)
            self._ledger.note_medium(medium)

    def write_text(self, name: str, step: int, text: str) -> None:
        """As Markdown."""
        self._run.log({name: self._module.Markdown(text)}, step=step)

    def write_picture(self, name: str, step: int, png: bytes) -> None:
        """The file as it is."""
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "picture.png"
            path.write_bytes(png)
            self._run.log({name: self._module.Image(str(path))}, step=step)

    def write_histogram(self, name: str, step: int, edges: list[float], counts: list[int]) -> None:
        """As trackio's own."""
        self._run.log({name: self._module.Histogram(np_histogram=(counts, edges))}, step=step)

    def close(self, status: str) -> None:
        """Write what is left."""
        self._run.finish()
