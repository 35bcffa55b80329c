"""Stop after so much time."""

from __future__ import annotations

import math
import time
from datetime import timedelta
from typing import Any

from treadle.events import Callback
from treadle.state import State


class TimeLimit(Callback):
    """End the fit after the step in which its time is up, with the evaluation and the checkpoint of its end.

    The time is that of the whole run: steps, evaluations and saves, and those of the parts before it was
    resumed, as far as a checkpoint knows of them. A run that it stopped stays stopped when resumed, unless
    the limit is larger then.

    Args:
        limit: seconds, or a timedelta.

    Raises:
        TypeError, ValueError: it is no positive, finite length of time.
    """

    def __init__(self, limit: float | timedelta) -> None:
        seconds = limit.total_seconds() if isinstance(limit, timedelta) else limit
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            raise TypeError(f"TimeLimit: limit is {limit!r}; give seconds or a datetime.timedelta")
        if not 0 < seconds < math.inf:
            raise ValueError(f"TimeLimit: limit is {limit!r}; it must be positive and finite")
        self.limit = float(seconds)
        self._before = 0.0  # seconds of earlier parts of the run
        self._began: float | None = None

    @property
    def seconds(self) -> float:
        """How long the run has taken so far."""
        return self._before + (0.0 if self._began is None else time.monotonic() - self._began)

    def on_fit_start(self, state: State) -> None:
        """The clock starts; a run whose time is up does not train one step more."""
        if state.progress.step == 0:
            self._before = 0.0
        self._began = time.monotonic()
        self._decide(state)

    def on_step_end(self, state: State) -> None:
        """See whether the time is up."""
        self._decide(state)

    def on_epoch_end(self, state: State) -> None:
        """See whether it was up after the epoch's evaluation."""
        self._decide(state)

    def on_cleanup(self, state: State) -> None:
        """The clock stops."""
        self._before, self._began = self.seconds, None

    def state_dict(self) -> dict[str, Any]:
        """The seconds so far."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the seconds that `state_dict` returned."""
        self._before = float(state["seconds"])
        self._began = None if self._began is None else time.monotonic()

    def _decide(self, state: State) -> None:
        if self.seconds >= self.limit:
            state.request_stop(f"{self.limit:g} seconds are over (TimeLimit)")
