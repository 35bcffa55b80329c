"""How a run on several processes fails: all of it, soon, and with its first cause said last."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from treadle import clock
from treadle.parallel.pulse import Pulse
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
    if not state.engine.strategy.is_shared:
        yield
        return
    strategy = state.engine.strategy
    strategy.pulse = pulse = Pulse()
    with clock.following(pulse.clock), failing(state):
        yield
        if state.interrupted:
            # A launcher that sees the first process leave asks the others to; they are on their way.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        path = state.engine.gather(None if state.run.path is None else str(state.run.path))[0]
        if not state.is_main and path is not None and Path(path).is_dir():
            state.run = Run.open(path)


@contextmanager
def failing(state: State) -> Iterator[None]:
    """An error in here says on which rank, in which step and batch it was raised, and torchrun is told."""
    try:
        yield
    except Exception as error:
        if not state.engine.strategy.is_shared:
            raise
        rank = state.engine.strategy.rank
        place = f"on rank {rank} in step {max(1, state.current_step)}, batch {state.progress.batch}"
        if is_loss(error):
            error.add_note(f"treadle: {place} another process was gone; its own message has the cause")
            time.sleep(PATIENCE)
        else:
            error.add_note(f"treadle: raised {place} of epoch {state.progress.epoch}")
            _tell_torchrun(error)
        raise


def _tell_torchrun(error: BaseException) -> None:
    """Leave the error where torchrun looks for the cause that it prints last."""
    if "TORCHELASTIC_ERROR_FILE" in os.environ:
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(error)
