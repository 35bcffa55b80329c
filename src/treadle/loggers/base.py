"""What all loggers share: they look at the run, and write on a thread of their own."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from treadle.events import Callback
from treadle.log import Point
from treadle.loggers.background import Background
from treadle.loggers.hyperparameters import hyperparameters_of
from treadle.runs.media import Medium
from treadle.state import State

logger = logging.getLogger("treadle")


class Begin(NamedTuple):
    """What a logger is told when a run begins or goes on.

    Attributes:
        id: eight letters and digits of this run alone; the same when it goes on.
        name: what the user calls it.
        folder: the run's folder; None for a run in memory.
        step: where it begins. Whatever was logged of later steps is from before a cut, and comes again.
        points, media: what the record holds of just this step; the sink may have more of it, or less.
        hyperparameters: flat, of numbers, strings and booleans.
    """

    id: str
    name: str
    folder: Path | None
    step: int
    points: list[Point]
    media: list[Medium]
    hyperparameters: dict[str, Any]


class Logger(Callback):
    """Hand what a run measures to somebody else, without ever stopping or slowing the run.

    Values come with the one copy from the device that the record makes anyway. They wait in a queue of
    bounded length and are written by a thread. A write that fails is tried again a few times and then
    dropped; what finds the queue full is dropped. The first time it is said in the log of the name
    "treadle", and at the end how much was lost; the record has it all. A run that goes on after a cut goes
    on in the same place, and no point is there twice.

    This class writes nothing. Subclasses override `open` and what they can show of `write_points`,
    `write_text`, `write_picture`, `write_histogram` and `close`: all run on the thread, and may raise.

    Names are those of the record: "train/loss" by step, "val/loss" by evaluation. Of a value that
    comes by step and by epoch, such as the loss, the epoch's mean is "epoch/train/loss".

    Args:
        hyperparameters: what to show of the run's settings; by default its configuration.
        capacity: how many log boundaries may wait.
        retries: how often a failed write is tried again.
        timeout: seconds that the end of the run waits for what is left.

    Raises:
        ImportError: the package is not installed.
        ValueError: a number is out of range.
    """

    # After the callbacks that record something at the same moment.
    order = 5_000.0

    package: str | None = None
    """What has to be installed, and the name of the extra."""

    def __init__(
        self,
        *,
        hyperparameters: Mapping[str, Any] | None = None,
        capacity: int = 1000,
        retries: int = 3,
        timeout: float = 10.0,
    ) -> None:
        own = type(self).__name__
        if capacity < 1 or retries < 0 or not timeout > 0:
            raise ValueError(
                f"{own}: capacity is {capacity!r}, retries {retries!r}, timeout {timeout!r}; allowed are "
                "at least 1, at least 0, and positive"
            )
        if self.package is not None and importlib.util.find_spec(self.package) is None:
            raise ImportError(
                f"{own} needs {self.package}: pip install 'treadle[{self.package}]'", name=self.package
            )
        self.hyperparameters = None if hyperparameters is None else dict(hyperparameters)
        self.capacity = capacity
        self.retries = retries
        self.timeout = timeout
        self._background: Background | None = None
        self._begin: Begin | None = None
        self._opened = False
        self._by_step: set[str] = set()
        self._results: dict[str, int] = {}

    # -- what a subclass does, on the thread -------------------------------------------------------------

    def check(self, begin: Begin) -> None:
        """Raise a ValueError where this run cannot be logged; called before training, not on the thread."""

    def open(self, begin: Begin) -> None:
        """Begin, or go on: nothing of a step after `begin.step` may stay or come twice."""

    def write_points(self, points: Sequence[Point]) -> None:
        """Values as (name, step, value), in the order in which they were recorded."""

    def write_medium(self, medium: Medium) -> None:
        """A text, a picture or a histogram."""
        if medium.kind == "text":
            self.write_text(medium.name, medium.step, medium.text)
        elif medium.kind == "picture":
            self.write_picture(medium.name, medium.step, medium.data)
        else:
            edges, counts = medium.histogram
            self.write_histogram(medium.name, medium.step, edges, counts)

    def write_text(self, name: str, step: int, text: str) -> None:
        """A text."""

    def write_picture(self, name: str, step: int, png: bytes) -> None:
        """A picture, as a PNG file."""

    def write_histogram(self, name: str, step: int, edges: list[float], counts: list[int]) -> None:
        """Counts between edges."""

    def close(self, status: str) -> None:
        """The run is over: "finished", "stopped", "interrupted" or "failed"."""

    # -- what it sees of the run -------------------------------------------------------------------------

    def on_fit_start(self, state: State) -> None:
        """Start the thread, which opens the sink."""
        if not state.is_main:
            return
        self._begin = begin = self._beginning(state)
        self.check(begin)
        self._by_step, self._opened = set(state.run.names()), False
        self._results = {name: step for name, step, _ in begin.points}
        self._background = Background(type(self).__name__, self.capacity, self.retries)
        self._background.put(self._open)

    def on_log(self, state: State) -> None:
        """Values have come from the device."""
        self._by_step.update(name for name, _, _ in state.points)
        self._put_points(list(state.points))

    def on_media(self, state: State) -> None:
        """A text, a picture or a histogram."""
        if self._background is not None:
            for medium in state.media:
                self._background.put(partial(self._write, self.write_medium, medium))

    def on_eval_end(self, state: State) -> None:
        """The values of an evaluation."""
        found = {name: value for name, value in state.results.items() if name.startswith(f"{state.mode}/")}
        self._put_results(state.progress.step, found)

    def on_epoch_results(self, state: State) -> None:
        """The row of an epoch; what its evaluation has said already is left out."""
        self._put_results(state.progress.step, named(state.row, self._by_step))

    def on_record_closed(self, state: State) -> None:
        """Write what is left, and say what was lost."""
        background, self._background = self._background, None
        if background is None:
            return
        background.put(partial(self._write, self.close, str(state.run.status)))
        background.close(self.timeout)
        if background.dropped:
            logger.warning(
                "%s: %d times something was not logged: %s",
                background.name,
                background.dropped,
                background.problem,
            )

    def _beginning(self, state: State) -> Begin:
        run, step = state.run, state.progress.step
        given = self.hyperparameters
        return Begin(
            id=run.id,
            name=run.name,
            folder=run.path,
            step=step,
            points=points_at(run, step) if step else [],
            media=run.media(step=step) if step else [],
            hyperparameters=hyperparameters_of(state) if given is None else given,
        )

    def _put_results(self, step: int, values: Mapping[str, float]) -> None:
        new = [(name, step, value) for name, value in values.items() if self._results.get(name) != step]
        self._results.update((name, step) for name, _, _ in new)
        self._put_points(new)

    def _put_points(self, points: list[Point]) -> None:
        if self._background is not None and points:
            self._background.put(partial(self._write, self.write_points, points))

    def _open(self) -> None:
        if not self._opened and self._begin is not None:
            self.open(self._begin)
            self._opened = True

    def _write(self, write: Any, *given: Any) -> None:
        self._open()  # where that failed before
        write(*given)


def named(row: Mapping[str, float], by_step: Collection[str]) -> dict[str, float]:
    """The values of an epoch's row under the names that a logger gives."""
    own = {name: value for name, value in row.items() if not name.startswith("time/")}
    return {
        f"epoch/{name}" if name in by_step else name: value
        for name, value in own.items()
        if name.startswith("train/") or name not in by_step
    }


def points_at(run: Any, step: int) -> list[Point]:
    """What a record holds of one step, under the names that a logger gives."""
    found: dict[str, float] = dict(run.points_at(step))
    names = {name for name in run.names() if name.startswith("train/")}
    for row in run.epoch_rows():
        if row.step == step:
            found = {**named(row.values, names), **found}
    return [(name, step, value) for name, value in found.items()]
