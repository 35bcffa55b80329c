"""Where a run stands in time, and how numbers and times are written for people."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from treadle.state import State

Clock = Callable[[], float]


class Pace:
    """The epoch under way, the step within it, how fast samples go by, and the time left.

    Speed is taken over the last few seconds of training, evaluations left out; the time left is taken
    over the whole fit, evaluations included.
    """

    def __init__(self, state: State, now: float) -> None:
        self.began = now
        self.first_step = state.progress.step
        self.start_epoch(state, now)

    def start_epoch(self, state: State, now: float) -> None:
        """A training epoch begins, or goes on in its middle."""
        self.epoch = state.progress.epoch + 1
        self.epoch_began = now
        self.epoch_first_step = state.progress.step - math.ceil(state.progress.batch / state.accumulate)
        self.pause()

    def pause(self) -> None:
        """Training rests; speed is measured anew."""
        self._marks: deque[tuple[float, int, int]] = deque(maxlen=50)

    def speed(self, state: State, now: float) -> str:
        """Samples a second, or steps where the items of a step are counted on the device only."""
        self._marks.append((now, state.progress.samples, state.progress.step))
        then, samples, steps = self._marks[0]
        seconds = now - then
        if seconds <= 0:
            return ""
        if state.progress.samples > samples:
            return f"{(state.progress.samples - samples) / seconds:,.0f} samples/s"
        return f"{(state.progress.step - steps) / seconds:,.1f} steps/s"

    def step(self, state: State) -> int:
        """Optimizer steps done in this epoch."""
        return state.progress.step - self.epoch_first_step

    def total(self, state: State) -> int | None:
        """Optimizer steps of the whole run, where that is known."""
        return state.total_steps if state.total_steps is not None else state.max_steps

    def left(self, state: State, now: float) -> float | None:
        """Seconds until the run is done, where that can be told."""
        total, done = self.total(state), state.progress.step - self.first_step
        if total is None or done <= 0:
            return None
        return (now - self.began) / done * max(0, total - state.progress.step)


def clock_text(seconds: float) -> str:
    """Seconds as 0:05, 12:30 or 3:02:01."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def duration_text(seconds: float) -> str:
    """How long something took: 0.04 s, 5.20 s, 1:05."""
    return f"{seconds:.2f} s" if seconds < 60 else clock_text(seconds)


def number_text(value: float) -> str:
    """A value with four significant digits."""
    return f"{value:#.4g}" if math.isfinite(value) else f"{value:g}"


def count_text(count: int, noun: str) -> str:
    """1 step, 2 steps, 12,000 steps."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def of_text(done: int, total: int | None) -> str:
    """3/12, or 3 where the end is not known."""
    return str(done) if total is None else f"{done}/{total}"


def learning_rates(state: State) -> dict[str, str]:
    """The learning rate of each optimizer: {"lr": "0.1"}, or by the names of several: {"lr/critic": "0.1"}.

    One that is a tensor on the device is not read, and empty.
    """
    several = len(state.optimizers) > 1
    return {
        f"lr/{name}" if several else "lr": _rate(optimizer.param_groups[0])
        for name, optimizer in state.optimizers.items()
    }


def _rate(group: Mapping[str, Any]) -> str:
    rate = group["lr"]
    return f"{float(rate):.4g}" if getattr(rate, "is_cpu", True) else ""


def of_mode(results: Mapping[str, float], mode: str) -> dict[str, float]:
    """The results of one mode by their short names."""
    return {name.removeprefix(f"{mode}/"): v for name, v in results.items() if name.startswith(f"{mode}/")}


class Evaluated(NamedTuple):
    """The results of one evaluation, by short names, and the step it was done at."""

    step: int
    mode: str
    values: dict[str, float]
