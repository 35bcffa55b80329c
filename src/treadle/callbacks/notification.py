"""Tell somebody how a run goes."""

from __future__ import annotations

import logging
import math
import threading
import time
from typing import Any

from treadle.events import Callback, Every
from treadle.state import State

logger = logging.getLogger("treadle")


class Notification(Callback):
    """Send a message when the run ends, however it ends, and every so many epochs.

    Messages are sent on threads of their own. Nothing that goes wrong with one can fail or hold up the run:
    at its end it waits for them at most `timeout` seconds, and what was not sent is in the record as the
    event "notification_failed". The base class writes to the log of the name "treadle"; subclasses override
    `send`.

    Args:
        every: when to report besides the end, such as ``Every(epochs=10)``; None for the end alone.
        timeout: seconds, for a connection and for the wait at the end.

    Raises:
        ValueError: `every` has no epochs, or `timeout` is not positive.
    """

    # Late, so that what others decide about the end is in the message.
    order = 2000.0

    def __init__(self, every: Every | None = None, timeout: float = 10.0) -> None:
        own = type(self).__name__
        if every is not None and (not isinstance(every, Every) or every.epochs is None):
            raise ValueError(f"{own}: every is {every!r}; give treadle.Every(epochs=...), or None")
        if not (timeout > 0 and math.isfinite(timeout)):
            raise ValueError(f"{own}: timeout is {timeout!r}; it must be a positive number of seconds")
        self.every = every
        self.timeout = timeout
        self._threads: list[threading.Thread] = []
        self._errors: list[str] = []

    def send(self, subject: str, text: str, facts: dict[str, Any]) -> None:
        """Deliver one message; may take its time and may raise. Runs on a thread of its own.

        Args:
            subject: one line.
            text: the whole message.
            facts: the same as plain data: name, status, reason, step, epoch, results.
        """
        logger.info("%s", text)

    def on_epoch_end(self, state: State) -> None:
        """Report where it is due."""
        if self.every is not None and self.every.at_epoch(state.progress.epoch):
            self._post(state, "running", None)

    def on_cleanup(self, state: State) -> None:
        """Report how it ended, and wait a moment for what is on its way."""
        if state.exception is not None:
            self._post(state, "failed", f"{type(state.exception).__name__}: {state.exception}")
        else:
            self._post(state, "interrupted" if state.interrupted else "ended", state.stop_reason)
        self._wait(state)

    def _post(self, state: State, status: str, reason: str | None) -> None:
        if not state.is_main:
            return
        try:
            facts = facts_of(state, status, reason)
            thread = threading.Thread(
                target=self._deliver, args=(facts,), name=type(self).__name__, daemon=True
            )
            thread.start()
        except Exception as error:  # noqa: BLE001 - a message must never fail a run
            self._errors.append(_said(error))
        else:
            self._threads.append(thread)

    def _deliver(self, facts: dict[str, Any]) -> None:
        try:
            subject = f"{facts['name']}: {facts['status']}"
            self.send(subject, text_of(facts), facts)
        except Exception as error:  # noqa: BLE001
            self._errors.append(_said(error))

    def _wait(self, state: State) -> None:
        threads, self._threads = self._threads, []
        deadline = time.monotonic() + self.timeout
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        late = sum(thread.is_alive() for thread in threads)
        errors, self._errors = self._errors, []
        errors += [f"not delivered after {self.timeout:g} seconds"] * late
        for error in errors:
            logger.warning("%s: %s", type(self).__name__, error)
            try:
                state.run.event(
                    "notification_failed", state.progress.step, by=type(self).__name__, error=error
                )
            except Exception:
                logger.exception("%s: the failure could not be recorded", type(self).__name__)


def facts_of(state: State, status: str, reason: str | None) -> dict[str, Any]:
    """How the run stands, as JSON holds it; numbers that are not finite as text."""
    results = {name: value if math.isfinite(value) else str(value) for name, value in state.results.items()}
    return {
        "name": state.run.name,
        "id": state.run.id,
        "status": status,
        "reason": reason,
        "step": state.progress.step,
        "epoch": state.progress.epoch,
        "results": results,
    }


def text_of(facts: dict[str, Any]) -> str:
    """The facts for a reader."""
    lines = [f"Run {facts['name']} ({facts['id']}): {facts['status']}"]
    if facts["reason"]:
        lines.append(str(facts["reason"]))
    lines.append(f"epoch {facts['epoch']}, step {facts['step']}")
    lines += [
        f"{name}: {value:.6g}" if isinstance(value, float) else f"{name}: {value}"
        for name, value in facts["results"].items()
    ]
    return "\n".join(lines)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
