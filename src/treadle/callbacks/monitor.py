"""Callbacks that watch one result."""

from __future__ import annotations

import math
from typing import Any

from treadle.events import Callback
from treadle.state import State


class Monitor(Callback):
    """Watches one result. Base class: override `watch`, which gets each new value once.

    A result of an evaluation ("val/loss") is watched after each evaluation, also in the middle of an
    epoch; any other ("train/loss") after each epoch.

    Args:
        monitor: the full name of a result.

    Raises:
        TypeError: `monitor` is no name.
        ValueError: when a fit starts: it is a validation result, and nothing is validated. Later: the
            results have no such name; the text lists those they have.
    """

    def __init__(self, monitor: str) -> None:
        if not isinstance(monitor, str) or not monitor:
            raise TypeError(
                f"{type(self).__name__}: monitor is {monitor!r}; give the full name of a result, "
                "such as 'val/loss'"
            )
        self.monitor = monitor
        self._step = -1  # of the last value; an evaluation that is done twice at one step counts once
        self._mode = monitor.partition("/")[0]
        self._evaluated = False
        self._run: Any = None  # of the fit; what is evaluated besides is not watched

    @property
    def name(self) -> str:
        """The class and what it watches, so that several can be at work."""
        return f"{type(self).__name__}({self.monitor})"

    def watch(self, value: float, state: State) -> None:
        """A new value has come."""

    def reset(self) -> None:
        """A run begins anew: forget what was seen."""
        self._step = -1

    def state_dict(self) -> dict[str, Any]:
        """The step of the last value."""
        return {"step": self._step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self._step = int(state["step"])

    def on_fit_start(self, state: State) -> None:
        """See whether the value can come at all."""
        self._run = state.run
        check_it_can_come(type(self).__name__, self.monitor, state)
        self._evaluated = self._mode in state.evaluations
        if state.progress.step == 0:
            self.reset()

    def on_eval_end(self, state: State) -> None:
        """Look at the value of this evaluation."""
        if self._evaluated and state.mode == self._mode and state.run is self._run:
            self._look(state)

    def on_epoch_end(self, state: State) -> None:
        """Look at the value of this epoch."""
        if not self._evaluated:
            self._look(state)

    def on_cleanup(self, state: State) -> None:
        """What is evaluated after the fit is not watched."""
        self._run = None

    def _look(self, state: State) -> None:
        value = result_of(type(self).__name__, self.monitor, state)
        if state.progress.step != self._step:
            self._step = state.progress.step
            self.watch(value, state)


def check_mode(who: str, mode: str) -> str:
    """The mode as it is; raises a ValueError unless it is one."""
    if mode not in ("min", "max"):
        raise ValueError(f"{who}: mode is {mode!r}; allowed are 'min' and 'max'")
    return mode


def improves(value: float, best: float | None, mode: str, min_delta: float = 0.0) -> bool:
    """Whether a value is better than the best so far by more than `min_delta`; NaN never is."""
    if math.isnan(value) or best is None:
        return not math.isnan(value)
    return (best - value if mode == "min" else value - best) > min_delta


def check_it_can_come(who: str, monitor: str, state: State) -> None:
    """Raise a ValueError as a fit starts if a result is of an evaluation that never comes.

    Args:
        who: what watches it, for the error.
        monitor: the full name of the result.
        state: of the fit.
    """
    mode = monitor.partition("/")[0]
    evaluated = mode in state.evaluations
    never = state.eval_steps is None and state.eval_epochs is None
    if (evaluated and never) or (mode == "val" and not evaluated):
        raise ValueError(
            f"{who} watches {monitor!r}, and nothing is evaluated: give validation data and eval_every, or "
            "watch a result of training such as 'train/loss'"
        )


def result_of(who: str, monitor: str, state: State) -> float:
    """The value of a result that has just come.

    Raises:
        ValueError: the results have no such name; the text lists those they have.
    """
    if monitor not in state.results:
        known = ", ".join(sorted(state.results)) or "none yet"
        raise ValueError(f"{who} watches {monitor!r}, which is no result of this run. Known results: {known}")
    return state.results[monitor]
