"""Everything as Weights & Biases keeps it."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from treadle.log import Point
from treadle.loggers.base import Begin, Logger
from treadle.loggers.ledger import Ledger
from treadle.runs.media import Medium

LEDGER = ".wandb-ledger.json"


class WandbLogger(Logger):
    """Log to Weights & Biases: by default offline, into the run's folder; nothing is sent anywhere.

    `wandb sync runs/NAME/wandb/offline-run-*` sends it later. The step is logged as the metric "step" and is
    the axis of all others, so that values may come in any order. A run that goes on keeps its id; of what
    it repeats nothing is logged again.

    Args:
        project: the project's name.
        mode: "offline", or "online", which needs an account and sends everything there.
        folder: where wandb keeps its files, instead of the run's folder.
        options: see `Logger`.
    """

    package = "wandb"

    def __init__(
        self,
        project: str = "treadle",
        mode: Literal["offline", "online"] = "offline",
        folder: Path | str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if mode not in ("offline", "online"):
            raise ValueError(f"WandbLogger: mode is {mode!r}; allowed are 'offline' and 'online'")
        self.project = project
        self.mode = mode
        self.folder = None if folder is None else Path(folder)
        self._module: Any = None
        self._run: Any = None
        self._ledger = Ledger(None)

    def check(self, begin: Begin) -> None:
        """The run must be somewhere."""
        if self.folder is None and begin.folder is None:
            raise ValueError("WandbLogger: the run is in memory: give a folder")

    def open(self, begin: Begin) -> None:
        """Start wandb's own process, with what watches the machine and the program left out."""
        self._module = importlib.import_module("wandb")
        folder = self.folder or begin.folder
        assert folder is not None
        folder.mkdir(parents=True, exist_ok=True)
        self._ledger = Ledger(folder / (LEDGER if self.folder is None else f".{begin.id}{LEDGER}"))
        settings = self._module.Settings(
            console="off", silent=True, disable_code=True, disable_git=True, x_disable_stats=True
        )
        self._run = self._module.init(
            project=self.project,
            name=begin.name,
            id=begin.id,
            resume="allow",
            mode=self.mode,
            dir=str(folder),
            config=begin.hyperparameters,
            settings=settings,
            reinit="create_new",
        )
        self._run.define_metric("*", step_metric="step")

    def write_points(self, points: Sequence[Point]) -> None:
        """A row for each step."""
        fresh = self._ledger.fresh(points)
        rows: dict[int, dict[str, float]] = {}
        for name, step, value in fresh:
            rows.setdefault(step, {})[name] = value
        for step, row in rows.items():
            self._run.log({"step": step, **row})
        self._ledger.note(fresh)

    def write_medium(self, medium: Medium) -> None:
        """What was not logged before."""
        if self._ledger.is_fresh(medium.kind, medium.name, medium.step):
            super().write_medium(medium)
            self._ledger.note_medium(medium)

    def write_text(self, name: str, step: int, text: str) -> None:
        """As a page of its own."""
        escaped = text.replace("&", "&amp;").replace("<", "&lt;")
        self._run.log({"step": step, name: self._module.Html(f"<pre>{escaped}</pre>", inject=False)})

    def write_picture(self, name: str, step: int, png: bytes) -> None:
        """The file as it is."""
        with tempfile.NamedTemporaryFile(suffix=".png") as file:
            file.write(png)
            file.flush()
            self._run.log({"step": step, name: self._module.Image(file.name)})

    def write_histogram(self, name: str, step: int, edges: list[float], counts: list[int]) -> None:
        """As wandb's own."""
        histogram = self._module.Histogram(np_histogram=(counts, edges))
        self._run.log({"step": step, name: histogram})

    def close(self, status: str) -> None:
        """Say how it ended."""
        self._run.finish(exit_code=1 if status == "failed" else 0)
