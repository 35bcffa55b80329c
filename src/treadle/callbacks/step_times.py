"""Where the time of an epoch goes."""

from __future__ import annotations

import time
from collections.abc import Callable

from treadle.events import Callback
from treadle.state import State


class StepTimes(Callback):
    """Record the seconds of each epoch by what was done: the report draws them. A `Trainer` that writes a
    report has one.

    The columns are "time/data" (waiting for the next window of batches), "time/forward" (moving a batch,
    forward pass, loss), "time/backward", "time/optimizer" (clipping too), "time/checkpoint" (what training
    waited for saves between steps), and "time/other" (the record, callbacks at a step's end). A callback at
    another hook counts for the part that ends there. Evaluations are left out; the record times them
    anyway. This is the host's time: an accelerator works on while the host goes ahead, and what waits for
    it then looks long. Nothing waits for the sake of measuring.

    Args:
        clock: gives seconds; only differences count.
    """

    # After all others, so that at a step's end they, checkpoints too, are behind us.
    order = 1e9

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._since = clock()
        self._start(0.0)

    # Five of these run in every step: each is one call, and one of the clock.

    def on_epoch_start(self, state: State) -> None:
        """Count from here."""
        self._start(state.seconds_saving)

    def on_step_start(self, state: State) -> None:
        """The window is there."""
        now = self._clock()
        self._data += now - self._since
        self._since = now

    def on_after_loss(self, state: State) -> None:
        """The loss is there."""
        now = self._clock()
        self._forward += now - self._since
        self._since = now

    def on_after_backward(self, state: State) -> None:
        """The gradient is added."""
        now = self._clock()
        self._backward += now - self._since
        self._since = now

    def on_after_optimizer_step(self, state: State) -> None:
        """The parameters have moved."""
        now = self._clock()
        self._optimizer += now - self._since
        self._since = now

    def on_step_end(self, state: State) -> None:
        """What follows is the wait for data."""
        now = self._clock()
        self._other += now - self._since
        self._since = now

    def on_eval_start(self, state: State) -> None:
        """What came before it is counted."""
        self.on_step_end(state)

    def on_eval_end(self, state: State) -> None:
        """It is left out."""
        self._since = self._clock()

    def on_epoch_results(self, state: State) -> None:
        """Hand the sums to the epoch's row."""
        self.on_step_end(state)
        saving = state.seconds_saving - self._saved_before
        state.times |= {
            "time/data": self._data,
            "time/forward": self._forward,
            "time/backward": self._backward,
            "time/optimizer": self._optimizer,
            "time/checkpoint": saving,
            "time/other": max(0.0, self._other - saving),
        }

    def _start(self, saved_before: float) -> None:
        self._data = self._forward = self._backward = self._optimizer = self._other = 0.0
        self._saved_before = saved_before
        self._since = self._clock()
