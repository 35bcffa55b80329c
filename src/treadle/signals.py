"""Being asked to leave: finish the step, save, and go with a code that says "resume me"."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from treadle.state import State

EXIT_INTERRUPTED = 75
"""EX_TEMPFAIL of sysexits.h: interrupted, and resumable."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(SystemExit):
    """A signal ended the fit at a step boundary, and everything is saved.

    It leaves the program with code 75 unless somebody catches it.

    Attributes:
        run: the record of the run, to be resumed from.
    """

    def __init__(self, run: Any) -> None:
        super().__init__(EXIT_INTERRUPTED)
        self.run = run


@contextmanager
def interruptible(state: State) -> Iterator[None]:
    """Within it the first SIGINT or SIGTERM stops the run after its step; the next one acts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals; elsewhere they are not ours
        return

    before = {number: signal.getsignal(number) for number in SIGNALS}

    def leave(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        state.interrupt(f"{signal.Signals(number).name} received")

    for number in SIGNALS:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
