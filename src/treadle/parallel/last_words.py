"""What a process that is killed leaves behind: where it was, for its launcher to print."""

from __future__ import annotations

import math
import os
import time
from contextlib import suppress

from treadle.events import Callback
from treadle.state import State

VARIABLE = "TORCHELASTIC_ERROR_FILE"
"""The file that torchrun reads, and prints last, when this process has failed; torch's own protocol."""

LENGTH = 400  # bytes, more than any words have: what was written before is written over


def place_of(state: State) -> str:
    """Where this process is: "on rank 1 in step 8, batch 2 of epoch 1"."""
    progress, rank = state.progress, state.engine.strategy.rank
    step = max(1, state.current_step)
    return f"on rank {rank} in step {step}, batch {progress.batch} of epoch {progress.epoch}"


class LastWords(Callback):
    """Keeps where this process is in the file that its launcher prints from, should it die.

    Who is killed has no time to speak, so it does beforehand, as each step begins and ends: one write of
    400 bytes to an open file. The launcher looks into the files of all processes that failed, and takes the
    one with the earliest time for the cause. So who fails because another is gone withdraws its own; and
    where a signal may come first, the times are those of the last exchange, which are alike on all.
    """

    order = -math.inf

    def __init__(self) -> None:
        self._path = os.environ.get(VARIABLE)
        self._file: int | None = None
        self._began = 0.0

    def begin(self, state: State, nested: bool = False) -> None:
        """Keep where `state` stands from now on; all processes call this.

        Args:
            state: of this process.
            nested: let the words of somebody else in this process stand, those of a fit around a look.
        """
        self._began = state.engine.gather(time.time())[0]
        if self._path is not None:
            with suppress(OSError):  # it is there already, or its folder is gone: then there are no words
                how = os.O_EXCL if nested else os.O_TRUNC
                self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | how, 0o600)
        self.say(state)

    def say(self, state: State) -> None:
        """Where this process is now."""
        if self._file is None:
            return
        text = f"treadle: died {place_of(state)}"
        seconds = int(self._began + state.engine.strategy.pulse.clock())
        words = f'{{"py_callstack": "{text}", "timestamp": "{seconds}"}}'
        words = f'{{"message": {{"message": "{text}", "extraInfo": {words}}}}}'
        with suppress(OSError):  # a full disk
            os.pwrite(self._file, words.ljust(LENGTH).encode(), 0)

    def withdraw(self) -> None:
        """This process ends in another way, or goes on with something else."""
        if self._file is not None and self._path is not None:
            os.close(self._file)
            self._file = None
            with suppress(OSError):
                os.unlink(self._path)

    def on_fit_start(self, state: State) -> None:
        """A run that goes on stands elsewhere than at the beginning."""
        self.say(state)

    def on_epoch_start(self, state: State) -> None:
        """An epoch begins."""
        self.say(state)

    def on_step_start(self, state: State) -> None:
        """A step begins."""
        self.say(state)

    def on_log(self, state: State) -> None:
        """A step is counted, and what it logged is handed on."""
        self.say(state)

    def on_step_end(self, state: State) -> None:
        """A step ends."""
        self.say(state)

    def on_epoch_results(self, state: State) -> None:
        """An epoch is counted."""
        self.say(state)

    def on_eval_start(self, state: State) -> None:
        """An epoch or a step is counted, and evaluated."""
        self.say(state)

    def on_cleanup(self, state: State) -> None:
        """Signals are not handled from here on."""
        self.say(state)

    def on_exception(self, state: State) -> None:
        """This process can speak for itself, and that comes first: a signal may follow soon."""
        self.withdraw()
