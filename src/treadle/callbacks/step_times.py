"""Where the time of an epoch goes."""

from __future__ import annotations

import time
from collections.abc import Callable

from treadle.events import Callback
from treadle.state import State

PARTS = ("data", "forward", "backward", "optimizer", "other")


class StepTimes(Callback):
    """Record the seconds of each epoch by what was done: the report draws them.

    The columns are "time/data" (waiting for the next window of batches), "time/forward" (moving a batch,
    forward pass, loss), "time/backward", "time/optimizer", and "time/other" (callbacks, checkpoints, the
    record). Evaluations are left out; the record times them anyway. This is the host's time: an accelerator
    works on while the host goes ahead, and what waits for it then looks long. Nothing waits for the sake
    of measuring.

    Args:
        clock: gives seconds; only differences count.
    """

    # First of all, so that other callbacks count as other.
    order = -1e9

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._sums = dict.fromkeys(PARTS, 0.0)
        self._since = 0.0

    def on_epoch_start(self, state: State) -> None:
        """Count from here."""
        self._sums = dict.fromkeys(PARTS, 0.0)
        self._since = self._clock()

    def on_step_start(self, state: State) -> None:
        """The window is there."""
        self._lap("data")

    def on_batch_start(self, state: State) -> None:
        """Moving the batch counts as forward: on the host it is a moment."""
        self._lap("forward")

    def on_after_loss(self, state: State) -> None:
        """The loss is there."""
        self._lap("forward")

    def on_after_backward(self, state: State) -> None:
        """The gradient is added."""
        self._lap("backward")

    def on_before_optimizer_step(self, state: State) -> None:
        """All gradients are there."""
        self._lap("other")

    def on_after_optimizer_step(self, state: State) -> None:
        """The parameters have moved."""
        self._lap("optimizer")

    def on_eval_start(self, state: State) -> None:
        """What came before it is counted."""
        self._lap("other")

    def on_eval_end(self, state: State) -> None:
        """It is left out."""
        self._since = self._clock()

    def on_step_end(self, state: State) -> None:
        """What follows is the wait for data, and the callbacks after this one."""
        self._lap("other")

    def on_epoch_results(self, state: State) -> None:
        """Hand the sums to the epoch's row."""
        self._lap("other")
        state.row.update({f"time/{name}": seconds for name, seconds in self._sums.items()})

    def _lap(self, name: str) -> None:
        now = self._clock()
        self._sums[name] += now - self._since
        self._since = now
