"""Work that must neither stop nor slow a run: done on a thread, from a queue that has an end."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

logger = logging.getLogger("treadle")

Work = Callable[[], None]


class Background:
    """A thread that does what it is given, in order.

    `put` never waits: what finds the queue full is dropped. Work that raises is tried again after a pause,
    twice as long each time; after the last try it is dropped. The first time that something is dropped
    it is said in the log of the name "treadle".

    Args:
        name: who is to blame, for messages.
        capacity: how much may wait.
        retries: further tries after the first.
        pause: seconds before the first of them.
    """

    def __init__(self, name: str, capacity: int, retries: int, pause: float = 0.2) -> None:
        self.name = name
        self.retries = retries
        self.pause = pause
        self.dropped = 0
        self.problem = ""
        self._queue: queue.Queue[Work | None] = queue.Queue(capacity)
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)
        self._thread.start()

    def put(self, work: Work) -> None:
        """Have something done soon, if there is room."""
        try:
            self._queue.put_nowait(work)
        except queue.Full:
            self._drop("it is too slow")

    def close(self, seconds: float) -> None:
        """Wait for what is left, at most so long; what is not done then is dropped."""
        deadline = time.monotonic() + seconds
        try:
            self._queue.put(None, timeout=seconds)
        except queue.Full:
            pass
        else:
            self._thread.join(max(0.0, deadline - time.monotonic()))
        self._hurry.set()  # no more waiting between tries
        if self._thread.is_alive():
            self._drop(f"it was not done after {seconds:g} seconds", max(self._queue.qsize(), 1))

    def _live(self) -> None:
        while (work := self._queue.get()) is not None:
            self._try(work)

    def _try(self, work: Work) -> None:
        for number in range(self.retries + 1):
            try:
                work()
            except Exception as error:  # noqa: BLE001 - whatever a tracker raises
                problem = f"{type(error).__name__}: {error}"
            else:
                return
            if number < self.retries:
                self._hurry.wait(self.pause * 2**number)
        self._drop(problem)

    def _drop(self, problem: str, count: int = 1) -> None:
        first, self.dropped = not self.dropped, self.dropped + count
        self.problem = self.problem or problem
        if first:
            logger.warning("%s: something is not logged, and the run goes on: %s", self.name, problem)
