"""What rides along whenever processes exchange numbers: who wants to stop, and the time on rank 0."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


class Pulse:
    """Wishes of this process, and what all have agreed on at the last exchange.

    Every exchange of numbers carries them, so agreeing costs no message of its own.

    Attributes:
        reason: why this process wants to stop; None while it does not.
        leaving: whether it wants to be gone on with later: somebody outside has asked it to leave.
        stop: whether any process wanted to stop at the last exchange; the same on every rank.
        clock: the time on rank 0 at the last exchange, the same on every rank.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self.leaving = False
        self.stop = False
        self._seconds = 0.0
        self._began = time.monotonic()
        # A plain function, so that what keeps it can be copied.
        self.clock: Callable[[], float] = lambda: self._seconds

    def __reduce__(self) -> Any:
        return Pulse, ()  # a copy, or one that is sent to another process, has heard nothing yet

    def ask(self, reason: str, leaving: bool = False) -> None:
        """Wish for a stop; the first reason stands. Safe in a signal handler."""
        self.leaving = self.leaving or leaving
        if self.reason is None:
            self.reason = reason

    def beat(self, is_main: bool) -> list[float]:
        """What to add over all processes."""
        return [float(self.reason is not None), time.monotonic() - self._began if is_main else 0.0]

    def heard(self, sums: list[float]) -> None:
        """The sums over all processes."""
        self.stop, self._seconds = sums[0] > 0, sums[1]
