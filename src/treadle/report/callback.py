"""The report of a run, in its folder, while it goes on and when it has ended."""

from __future__ import annotations

import logging
import math
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from treadle.events import Callback
from treadle.runs import Run

if TYPE_CHECKING:
    from treadle.state import State

logger = logging.getLogger("treadle")

FILE = "report.html"

LONGEST_WAIT = 30.0
"""Seconds that the end of a run waits for a report that is being written."""


class ReportWriter(Callback):
    """Keep `report.html` in the run's folder up to date.

    While the run goes on it is written on a thread of its own, where values arrive from the device and at
    ends of epochs: at most every so many seconds, never twice at a time, and for no more than a fiftieth of
    the time. Steps cost nothing. The last report is written when the record is closed. Nothing that goes
    wrong with a report fails the run: it is said once, in the log of the name "treadle". A run in memory
    has no report.

    Args:
        seconds: the least time between two reports of a run that goes on.
        path: another place for the file.

    Raises:
        ValueError: `seconds` is not a positive number.
    """

    # After whatever records something at the same moment.
    order = 10_000.0

    def __init__(self, seconds: float = 30.0, path: Path | str | None = None) -> None:
        is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        if not (is_number and seconds > 0 and math.isfinite(seconds)):
            raise ValueError(f"ReportWriter: seconds is {seconds!r}; it must be a positive number")
        self.seconds = seconds
        self.path = None if path is None else Path(path)
        self._thread: threading.Thread | None = None
        self._due = math.inf
        self._failed = False

    def on_fit_start(self, state: State) -> None:
        """The first report comes after the first of the waits, so that short runs write one alone."""
        writes = state.is_main and state.run.path is not None
        self._due = time.monotonic() + self.seconds if writes else math.inf
        self._failed = False

    def on_log(self, state: State) -> None:
        """Write where it is due."""
        self._refresh(state)

    def on_epoch_end(self, state: State) -> None:
        """Write where it is due."""
        self._refresh(state)

    def on_record_closed(self, state: State) -> None:
        """Write how it ended."""
        thread, self._thread, self._due = self._thread, None, math.inf
        if not state.is_main or state.run.path is None:
            return
        if thread is not None:
            thread.join(LONGEST_WAIT)
            if thread.is_alive():
                self._say(f"the last one is not written after {LONGEST_WAIT:g} seconds; it stays as it is")
                return
        self._write(Path(state.run.path))

    def _refresh(self, state: State) -> None:
        if time.monotonic() < self._due or (self._thread is not None and self._thread.is_alive()):
            return
        self._due = time.monotonic() + self.seconds
        folder = Path(state.run.path)
        self._thread = threading.Thread(target=self._write, args=(folder,), name="report", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # no more threads
            self._thread = None
            self._say(str(error))

    def _write(self, folder: Path) -> None:
        try:
            from treadle.report.document import write_report

            began = time.monotonic()
            write_report(Run.open(folder), self.path or folder / FILE)
            took = time.monotonic() - began
            self._due = max(self._due, began + 50 * took)
        except Exception as error:  # noqa: BLE001 - a picture of a run must never fail it
            self._say(f"{type(error).__name__}: {error}")

    def _say(self, problem: str) -> None:
        if not self._failed:
            logger.warning("the report could not be written: %s", problem)
        self._failed = True
