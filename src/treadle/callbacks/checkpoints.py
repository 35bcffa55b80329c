"""Checkpoints while a run goes on: when, which ones stay, and who waits for the disk."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from treadle.callbacks.monitor import check_it_can_come, check_mode, result_of
from treadle.checkpoint import BackgroundWriter, CheckpointError, Commit, ShardedWriter, Writer
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
        monitor: the name of a result, such as "val/accuracy"; None takes "val/loss" where there is one.
        mode: "min" or "max": which way `monitor` is better.
        background: write on a thread, from copies, while training goes on. Where processes write a shard
            each (FSDP2), they wait until it is done.
        on_error: what a save that fails (a full disk, one that errs) does to the run. "raise" stops it: it
            can be resumed from the checkpoint before. "warn" says so, records the event "checkpoint failed",
            and trains on; the next save tries again. The checkpoint before is never at risk. A record that
            cannot be written always stops the run, since what it misses could not be made up for.
        after_save: called with a `Commit` (path, step, score) after each save, on the thread that writes: to
            copy it elsewhere, say.

    Raises:
        ValueError: a number is out of range, or `mode` or `on_error` is none of its values. In a fit:
            `monitor` is given and is no result of it; the text lists those there are.
        CheckpointError: while training: a save failed, with `on_error="raise"`; in the background, the
            save after it says so.
    """

    order = 1000.0

    def __init__(
        self,
        every: Every | None = None,
        keep_last: int | None = 3,
        keep_best: int = 1,
        monitor: str | None = None,
        mode: str = "min",
        background: bool = True,
        on_error: str = "raise",
        after_save: Callable[[Commit], None] | None = None,
    ) -> None:
        if every is not None and not isinstance(every, Every):
            raise TypeError(
                f"Checkpoints: every is {every!r}; give treadle.Every(steps=..., epochs=..., seconds=...)"
            )
        if keep_last is not None and not (_is_count(keep_last) and keep_last >= 1):
            raise ValueError(
                f"Checkpoints: keep_last is {keep_last!r}; it must be at least 1, or None to keep all"
            )
        if not (_is_count(keep_best) and keep_best >= 0):
            raise ValueError(
                f"Checkpoints: keep_best is {keep_best!r}; it must be a whole number, not negative"
            )
        if monitor is not None and (not isinstance(monitor, str) or not monitor):
            raise TypeError(
                f"Checkpoints: monitor is {monitor!r}; give the full name of a result, such as 'val/loss'"
            )
        if on_error not in ("raise", "warn"):
            raise ValueError(f"Checkpoints: on_error is {on_error!r}; allowed are 'raise' and 'warn'")
        self.every = every or Every(epochs=1, seconds=600)
        self.keep_last = keep_last
        self.keep_best = keep_best
        self.monitor = monitor or "val/loss"
        self._must_come = monitor is not None
        self.mode = check_mode("Checkpoints", mode)
        self.background = background
        self.on_error = on_error
        self._saves = False
        self._writer: Writer | None = None
        self.after_save = after_save
        self._saved: tuple[Any, ...] | None = None
        self._scored: tuple[int, float] | None = None
        self._run: Any = None  # of the fit; what is evaluated besides is no score

    def on_fit_start(self, state: State) -> None:
        """Open the folder of the run; without one there is nothing to do."""
        self._saved = self._scored = None
        self._run = state.run
        if self._must_come:
            check_it_can_come("Checkpoints", self.monitor, state)
        # All processes take part in what is saved; who has the run's folder writes it, or all do.
        path, strategy = state.run.path, state.engine.strategy
        run = state.engine.gather(None if path is None else str(path))[0]
        self._saves = run is not None
        if not self._saves or (path is None and not strategy.shards_checkpoints):
            return
        options: dict[str, Any] = {
            "keep_last": self.keep_last,
            "keep_best": self.keep_best,
            "mode": self.mode,
            "on_commit": self.after_save,
        }
        folder = Path(run) / "checkpoints"
        if strategy.shards_checkpoints:
            self._writer = ShardedWriter(
                folder, strategy.gather, strategy.rank, strategy.world_size, **options
            )
        else:
            self._writer = (BackgroundWriter if self.background else Writer)(folder, **options)
        state.run.update(best_by={"monitor": self.monitor, "mode": self.mode})

    def on_eval_end(self, state: State) -> None:
        """Remember the score of the weights as they are at this step."""
        if self.monitor.startswith(f"{state.mode}/") and state.run is self._run:
            self._look(state)

    def on_step_end(self, state: State) -> None:
        """Save in the middle of an epoch where it is due."""
        if self.every.at_step(state.progress.step):
            self.save(state)

    def on_epoch_end(self, state: State) -> None:
        """Save after an epoch where it is due; saves by steps alone also keep what has just been scored."""
        if self._must_come and self.monitor.partition("/")[0] not in state.evaluations:
            self._look(state)
        by_steps = self.every.epochs is None and self.keep_best > 0 and self._score(state) is not None
        if self.every.at_epoch(state.progress.epoch) or by_steps:
            self.save(state)

    def on_fit_end(self, state: State) -> None:
        """Save the end of the run, unless it is saved already."""
        self.save(state)
        if self._writer is not None:
            with self._tolerant(state):
                self._writer.wait()

    def on_cleanup(self, state: State) -> None:
        """Save the end of a run that was cancelled too; finish what is being written."""
        if state.exception is None:
            self.save(state)
        self._saves, self._run = False, None
        if self._writer is not None:
            writer, self._writer = self._writer, None
            try:
                with self._tolerant(state):
                    writer.close()
            except CheckpointError as error:
                if state.exception is None:
                    raise
                state.exception.add_note(f"treadle: besides, {error}")  # and what ended the run stays last

    def save(self, state: State) -> None:
        """Save the run as it stands at this boundary, once, with the score of these weights."""
        place = (state.progress.step, state.progress.epoch, state.ended)
        if not self._saves or place == self._saved:
            return
        began = time.perf_counter()
        # The record must hold every value up to a checkpoint before the checkpoint can be resumed from.
        state.flush()
        state.run.flush()
        if self._writer is not None:
            with self._tolerant(state):
                self._writer.wait()
        self._saved = place
        contents = capture(state)
        if self._writer is not None:
            with self._tolerant(state):
                self._writer.save(state.progress.step, contents, score=self._score(state))
        state.seconds_saving += time.perf_counter() - began

    def _look(self, state: State) -> None:
        if self._must_come or self.monitor in state.results:
            self._scored = (state.progress.step, result_of("Checkpoints", self.monitor, state))

    def _score(self, state: State) -> float | None:
        if self._scored is None or self._scored[0] != state.progress.step:
            return None
        return self._scored[1]

    @contextmanager
    def _tolerant(self, state: State) -> Iterator[None]:
        """What is written in here may fail, and the run go on without it."""
        try:
            yield
        except CheckpointError as error:
            if not state.engine.strategy.is_shared:  # several processes would have to agree to try again
                self._saved = None
            if self.on_error == "raise":
                raise
            warnings.warn(f"{error}; training goes on", stacklevel=4)
            state.run.event("checkpoint failed", state.progress.step, reason=str(error))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
