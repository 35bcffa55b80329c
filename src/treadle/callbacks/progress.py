"""The run while it goes on: plain lines here, a live display in `live_progress`."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from treadle.callbacks.pace import (
    Clock,
    Evaluated,
    Pace,
    clock_text,
    count_text,
    duration_text,
    learning_rates,
    number_text,
    of_mode,
    of_text,
)
from treadle.events import Callback

if TYPE_CHECKING:
    from rich.console import Console

    from treadle.state import State


def progress_bar(console: Console | None = None, every: int = 1) -> Progress:
    """The display that fits where the output goes: a terminal, a notebook, or anything else (plain lines).

    Args:
        console: where to print; rich's own if left out.
        every: how many epochs to a row of results; the last epoch always has one.
    """
    display = _display_for(console)
    display.every = every
    return display


def _display_for(console: Console | None) -> Progress:
    from rich import get_console

    console = console or get_console()
    if console.is_jupyter:
        from treadle.callbacks.live_progress import NotebookProgress

        return NotebookProgress(console)
    if console.is_terminal and not console.is_dumb_terminal:
        from treadle.callbacks.live_progress import TerminalProgress

        return TerminalProgress(console)
    return Progress(console)


class Progress(Callback):
    """Plain lines: the start, each epoch with its results, a sign of life in long epochs, the stop.

    Reads only what has come from the device already. Silent on every process but the main one.

    Args:
        console: where to print; rich's own, which writes to standard output, if left out.
        clock: seconds from any beginning.
    """

    order = 100.0

    every: int = 1
    """How many epochs to a row of results; the last epoch always has one."""

    seconds: float = 30.0
    """How long nothing is printed inside an epoch or an evaluation."""

    def __init__(self, console: Console | None = None, clock: Clock = time.monotonic) -> None:
        from rich import get_console

        self.console = console or get_console()
        self._clock = clock
        self._due = math.inf  # never, until something starts on the main process
        self._pace: Pace | None = None
        self._evaluated: list[Evaluated] = []
        self._batches = 0

    def on_fit_start(self, state: State) -> None:
        """Say what is ahead."""
        if state.is_main:
            now = self._clock()
            self._pace = Pace(state, now)
            self._evaluated = []
            self.open()
            self.started(state)
            self._due = now + self.seconds

    def on_epoch_start(self, state: State) -> None:
        """Count from here."""
        if self._pace is not None:
            self._pace.start_epoch(state, self._clock())

    def on_step_end(self, state: State) -> None:
        """Show something where it is time to: one look at the clock, else nothing."""
        if self._clock() >= self._due:
            self._draw(state)

    def on_epoch_end(self, state: State) -> None:
        """Show the results of the epoch and of its evaluations."""
        if self._pace is not None:
            evaluated = self._taken()
            last = state.stop_reason is not None or state.progress.epoch == state.max_epochs
            if last or state.progress.epoch % self.every == 0:
                self.epoch_done(state, self._pace, evaluated)
            self._pace.pause()

    def on_eval_start(self, state: State) -> None:
        """Count the evaluation's batches."""
        self._batches = 0
        if state.is_main and self._pace is None:
            self.open()
            self._due = self._clock() + self.seconds

    def on_eval_batch_end(self, state: State) -> None:
        """Show something where it is time to."""
        self._batches += 1
        if self._clock() >= self._due:
            self._draw(state)

    def on_eval_end(self, state: State) -> None:
        """Keep the results for the epoch's end, or for the next step if the epoch goes on."""
        if self._pace is None:
            self._end()
            return
        self._evaluated.append(Evaluated(state.progress.step, state.mode, of_mode(state.results, state.mode)))
        self._pace.pause()
        self.evaluated()

    on_predict_start = on_eval_start
    on_predict_batch_end = on_eval_batch_end

    def on_predict_end(self, state: State) -> None:
        """The predictions are done."""
        if self._pace is None:
            self._end()

    def on_cleanup(self, state: State) -> None:
        """Give the terminal back and say why training stopped."""
        pace, self._pace = self._pace, None
        try:
            self._end()
        finally:
            if pace is not None:
                self.line(_stop_line(state), "bold")

    def _taken(self) -> list[Evaluated]:
        taken, self._evaluated = self._evaluated, []
        return taken

    def _draw(self, state: State) -> None:
        if self._evaluated and self._pace is not None and state.mode == "train":
            self.evaluation_done(state, self._pace, self._taken())
        began = self._clock()
        self.going_on(state, began)
        now = self._clock()
        # Whatever drawing costs here, it takes no more than about a fiftieth of the time.
        self._due = now + max(self.seconds, 50 * (now - began))

    def _end(self) -> None:
        self._due = math.inf
        self.close()

    # -- what the live displays do otherwise -------------------------------------------------------------

    def open(self) -> None:
        """Get ready to show something."""

    def close(self) -> None:
        """Show nothing more; may be called more than once."""

    def line(self, text: str, style: str = "") -> None:
        """Print one line, never cut."""
        from rich.text import Text

        self.console.print(Text(text, style=style), soft_wrap=True)

    def started(self, state: State) -> None:
        """The fit starts."""
        done = state.progress
        origin = f"Going on after {_done_text(state)}" if done.step else "Training"
        epochs = count_text(state.max_epochs, "epoch") if state.max_epochs is not None else None
        steps = count_text(state.max_steps, "step") if state.max_steps is not None else None
        length = count_text(state.steps_per_epoch, "step") if state.steps_per_epoch is not None else None
        goal = epochs or steps
        per_epoch = (
            f" of {length}" if epochs and length else f", {length} an epoch" if steps and length else ""
        )
        self.line(f"{origin}: {goal}{per_epoch}" if goal else origin)

    def going_on(self, state: State, now: float) -> None:
        """It is time to show where the run stands."""
        pace = self._pace
        if state.mode != "train" or pace is None:
            self.line(f"{state.mode}  batch {of_text(self._batches, state.eval_batches)}")
            return
        left = pace.left(state, now)
        parts = [
            f"epoch {of_text(pace.epoch, state.max_epochs)}",
            f"step {of_text(pace.step(state), state.steps_per_epoch)}",
            *(f"{name} {number_text(value)}" for name, value in of_mode(state.latest, "train").items()),
            pace.speed(state, now),
            clock_text(now - pace.began) + (f", {clock_text(left)} left" if left is not None else ""),
        ]
        self.line("  ".join(part for part in parts if part))

    def evaluated(self) -> None:
        """An evaluation is done; if no epoch ends with it, its line comes with the next step."""
        self._due = -math.inf

    def evaluation_done(self, state: State, pace: Pace, evaluated: list[Evaluated]) -> None:
        """Evaluations in the middle of an epoch are done."""
        for one in evaluated:
            self.line("  ".join([f"step {one.step}", *_named([one])]))

    def epoch_done(self, state: State, pace: Pace, evaluated: list[Evaluated]) -> None:
        """An epoch and its evaluations are done."""
        self._due = self._clock() + self.seconds
        self.line(self.epoch_line(state, pace, evaluated))

    def epoch_line(self, state: State, pace: Pace, evaluated: list[Evaluated]) -> str:
        """An epoch's results in one line."""
        train = Evaluated(state.progress.step, "train", of_mode(state.results, "train"))
        parts = [
            f"epoch {of_text(pace.epoch, state.max_epochs)}",
            f"step {state.progress.step}",
            *_named([train, *evaluated]),
            *(f"{name} {rate}" for name, rate in learning_rates(state).items() if rate),
            duration_text(self._clock() - pace.epoch_began),
        ]
        return "  ".join(parts)


def _named(evaluated: list[Evaluated]) -> list[str]:
    return [f"{one.mode}/{name} {number_text(v)}" for one in evaluated for name, v in one.values.items()]


def _done_text(state: State) -> str:
    return f"{count_text(state.progress.epoch, 'epoch')}, {count_text(state.progress.step, 'step')}"


def _stop_line(state: State) -> str:
    error = state.exception
    if error is None:
        return f"Stopped after {_done_text(state)}: {state.stop_reason or 'no reason given'}"
    message = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"Failed after {_done_text(state)}: {message}"
