"""The report of a run, in its folder, while it goes on and when it has ended."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.events import Callback

if TYPE_CHECKING:
    from treadle.runs import Run
    from treadle.state import State

logger = logging.getLogger("treadle")

FILE = "report.html"


class ReportWriter(Callback):
    """Keep `report.html` in the run's folder up to date.

    While the run goes on it is written on a thread of its own, at ends of epochs and where values arrive
    from the device, at most every so many seconds and never twice at a time. Steps cost nothing. The last
    report is written when the run has ended. Nothing that goes wrong with it fails the run: it is said
    once, as the event "report failed". A run without a folder has no report.

    Args:
        seconds: the least time between two reports of a run that goes on.
        path: another place for the file.

    Raises:
        ValueError: `seconds` is not positive.
    """

    # Cleanup runs in the reverse order, so the lowest is the last to see the run: after checkpoints.
    order = -10_000.0

    def __init__(self, seconds: float = 30.0, path: Path | str | None = None) -> None:
        if isinstance(seconds, bool) or not seconds > 0:
            raise ValueError(f"ReportWriter: seconds is {seconds!r}; it must be positive")
        self.seconds = seconds
        self.path = None if path is None else Path(path)
        self._thread: threading.Thread | None = None
        self._due = 0.0
        self._failure: str | None = None

    def on_fit_start(self, state: State) -> None:
        """The first report comes after the first of the waits, so that short runs write one alone."""
        self._due = time.monotonic() + self.seconds
        self._failure = None

    def on_log(self, state: State) -> None:
        """Write where it is due."""
        self._refresh(state)

    def on_epoch_end(self, state: State) -> None:
        """Write where it is due."""
        self._refresh(state)

    def on_cleanup(self, state: State) -> None:
        """Write how it ended."""
        thread, self._thread = self._thread, None
        if not state.is_main or state.run.path is None:
            return
        if thread is not None:
            thread.join()
        self._write(Path(state.run.path), ending(state))
        if self._failure is not None:
            logger.warning("%s: %s", type(self).__name__, self._failure)
            try:
                state.run.event("report failed", state.progress.step, reason=self._failure)
            except Exception:
                logger.exception("%s: the failure could not be recorded", type(self).__name__)

    def _refresh(self, state: State) -> None:
        if time.monotonic() < self._due or not state.is_main or state.run.path is None:
            return
        if self._thread is not None and self._thread.is_alive():
            return
        self._due = time.monotonic() + self.seconds
        folder = Path(state.run.path)
        self._thread = threading.Thread(target=self._write, args=(folder, {}), name="report", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # no more threads
            self._thread, self._failure = None, f"{type(error).__name__}: {error}"

    def _write(self, folder: Path, fields: dict[str, Any]) -> None:
        try:
            from treadle.report.document import write_report

            write_report(_opened(folder, fields), self.path or folder / FILE)
        except Exception as error:  # noqa: BLE001 - a picture of a run must never fail it
            self._failure = f"{type(error).__name__}: {error}"


def ending(state: State) -> dict[str, Any]:
    """How the run is about to be recorded: its hooks end before its record does."""
    if state.exception is not None:
        status, reason = "failed", f"{type(state.exception).__name__}: {state.exception}"
    else:
        status = "interrupted" if state.interrupted else "finished" if state.finished else "stopped"
        reason = state.stop_reason or "done"
    return {
        "status": status,
        "reason": reason,
        "step": state.progress.step,
        "epoch": state.progress.epoch,
        "ended": time.time(),
    }


def _opened(folder: Path, fields: dict[str, Any]) -> Run:
    from treadle.runs import Run

    class Ending(Run):
        """A run on disk with fields that are not written yet."""

        @property
        def fields(self) -> dict[str, Any]:
            return {**super().fields, **fields}

        @property
        def status(self) -> str:
            return str(fields.get("status", super().status))

        @property
        def reason(self) -> str | None:
            return fields.get("reason", super().reason)

    return Ending.open(folder)
