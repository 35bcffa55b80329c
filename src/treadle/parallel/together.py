"""How a run on several processes fails: all of it, soon, and with its first cause said last."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from treadle import clock
from treadle.parallel.last_words import place_of
from treadle.parallel.pulse import Pulse
from treadle.parallel.state import ParallelState
from treadle.runs import Run
from treadle.state import State

LOST = (
    "gloo",
    "nccl",
    "connection closed",
    "connection reset",
    "connection refused",
    "broken pipe",
    "socket",
)
"""Words in the errors of collectives whose other side is gone."""

PATIENCE = 1.0
"""Seconds that a process which lost another one waits, so that the launcher sees the other end first."""


def is_loss(error: BaseException) -> bool:
    """Whether an error only says that another process is gone."""
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in LOST)


@contextmanager
def together(state: State) -> Iterator[None]:
    """A fit of all processes: they go by one clock, end together and fail together.

    Every process leaves with a record to look at, and not before rank 0 has written everything.
    """
    if not isinstance(state, ParallelState):
        yield
        return
    strategy = state.engine.strategy
    strategy.pulse = pulse = Pulse()
    state.last_words.begin(state)
    with clock.following(pulse.clock), failing(state):
        yield
        if state.interrupted:
            # A launcher that sees the first process leave asks the others to; they are on their way.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        path = state.engine.gather(None if state.run.path is None else str(state.run.path))[0]
        if not state.is_main and path is not None and Path(path).is_dir():
            state.run = Run.open(path)


@contextmanager
def looking_together(state: State) -> Iterator[None]:
    """An evaluation or a prediction of all processes; see `together`."""
    if isinstance(state, ParallelState):
        state.last_words.begin(state, nested=True)
    with failing(state):
        yield


@contextmanager
def failing(state: State) -> Iterator[None]:
    """An error in here says on which rank, in which step and batch it was raised, and torchrun is told."""
    if not isinstance(state, ParallelState):
        yield
        return
    try:
        yield
    except Exception as error:
        state.last_words.withdraw()
        if is_loss(error):
            whose = "its own message has the cause, or the launcher's"
            error.add_note(f"treadle: {place_of(state)} another process was gone; {whose}")
            time.sleep(PATIENCE)
        else:
            error.add_note(f"treadle: raised {place_of(state)}")
            _tell_torchrun(error)
        raise
    finally:
        state.last_words.withdraw()


def _tell_torchrun(error: BaseException) -> None:
    """Leave the error where torchrun looks for the cause that it prints last."""
    if "TORCHELASTIC_ERROR_FILE" in os.environ:
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(error)
