"""The clock by which things are due every so many seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

now: Callable[[], float] = time.monotonic
"""Seconds from some beginning, never going back. Read it as `clock.now`: it may be another one later."""


@contextmanager
def following(another: Callable[[], float]) -> Iterator[None]:
    """Go by another clock within the body.

    Processes that must decide alike go by one clock: that of rank 0, read at agreed moments.
    """
    global now
    before, now = now, another
    try:
        yield
    finally:
        now = before
