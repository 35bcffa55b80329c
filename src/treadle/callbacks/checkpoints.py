"""Checkpoints while a run goes on: when, which ones stay, and who waits for the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from treadle.checkpoint import BackgroundWriter, Writer, snapshot
from treadle.checkpoint.contents import capture
from treadle.events import Callback, Every
from treadle.state import State


class Checkpoints(Callback):
    """Save the whole run every so often and at its end; keep the last few and the best.

    Runs after all other callbacks, so that what they decided at a boundary is in the checkpoint.

    Args:
        every: when to save; the end of the fit always does. Default: after each epoch, and every ten minutes.
        keep_last: how many of the newest to keep; None keeps all.
        keep_best: how many of the best by `monitor` to keep besides.
        monitor: the name of a result, such as "val/accuracy"; default "val/loss" where there is one.
        mode: "min" or "max": which way `monitor` is better.
        background: write on a thread, from copies, while training goes on.

    Raises:
        ValueError: a number is out of range or `mode` is neither.
    """

    order = 1000.0

    def __init__(
        self,
        every: Every | None = None,
        keep_last: int | None = 3,
        keep_best: int = 1,
        monitor: str = "val/loss",
        mode: str = "min",
        background: bool = True,
    ) -> None:
        if every is not None and not isinstance(every, Every):
            raise TypeError(
                f"Checkpoints: every is {every!r}; give treadle.Every(steps=..., epochs=..., seconds=...)"
            )
        if keep_last is not None and keep_last < 1:
            raise ValueError(
                f"Checkpoints: keep_last is {keep_last}; it must be at least 1, or None to keep all"
            )
        if keep_best < 0:
            raise ValueError(f"Checkpoints: keep_best is {keep_best}; it must not be negative")
        if mode not in ("min", "max"):
            raise ValueError(f"Checkpoints: mode is {mode!r}; allowed are 'min' and 'max'")
        self.every = every or Every(epochs=1, seconds=600)
        self.keep_last = keep_last
        self.keep_best = keep_best
        self.monitor = monitor
        self.mode = mode
        self.background = background
        self._writer: Writer | None = None
        self._saved: tuple[Any, ...] | None = None

    def on_fit_start(self, state: State) -> None:
        """Open the folder of the run; without one there is nothing to do."""
        self._saved = None
        if state.run.path is not None and state.is_main:
            kind = BackgroundWriter if self.background else Writer
            self._writer = kind(
                Path(state.run.path) / "checkpoints",
                keep_last=self.keep_last,
                keep_best=self.keep_best,
                mode=self.mode,
            )

    def on_step_end(self, state: State) -> None:
        """Save in the middle of an epoch where it is due."""
        if self.every.at_step(state.progress.step):
            self.save(state, score=None)

    def on_epoch_end(self, state: State) -> None:
        """Save after an epoch where it is due."""
        if self.every.at_epoch(state.progress.epoch):
            self.save(state, score=state.results.get(self.monitor))

    def on_fit_end(self, state: State) -> None:
        """Save the end of the run, unless it is saved already."""
        self.save(state, score=None)
        if self._writer is not None:
            self._writer.wait()

    def on_cleanup(self, state: State) -> None:
        """Finish what is being written."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()

    def save(self, state: State, score: float | None) -> None:
        """Save the run as it stands at this boundary, once."""
        place = (state.progress.step, state.progress.epoch)
        if self._writer is None or place == self._saved:
            return
        # The record must hold every value up to a checkpoint before the checkpoint can be resumed from.
        state.flush()
        state.run.flush()
        self._writer.save(state.progress.step, snapshot(capture(state)), score=score)
        self._saved = place
