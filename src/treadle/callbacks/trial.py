"""A few batches of everything before the long run."""

from __future__ import annotations

from itertools import islice
from typing import Any

import torch

from treadle.checkpoint import snapshot
from treadle.checkpoint.contents import capture, restore
from treadle.data import Batches
from treadle.events import Callback, Hooks
from treadle.log import counters, read_counters
from treadle.state import State

PREDICTION = "a prediction"


class Trial(Callback):
    """Try a few batches of everything before a run begins: steps, evaluation, prediction, a checkpoint.

    An error in the last line of an evaluation then comes in the first seconds and not after the first
    epoch. Afterwards weights, buffers, optimizers, schedules, generators, data, metrics and callbacks are
    as they were to the last bit, so the run is the one without the trial. Other callbacks do not take
    part, apart from being saved. A run that is resumed is not tried again.

    Args:
        batches: how many training windows, and how many batches of each evaluation.
        predict: whether to predict a training batch too; not where the task predicts from something else.

    Raises:
        ValueError: `batches` is below 1. When a fit starts: whatever the tried code raises, with a note that
            says in which part it was.
    """

    # When the others are set up.
    order = 800.0

    def __init__(self, batches: int = 2, predict: bool = True) -> None:
        if isinstance(batches, bool) or not isinstance(batches, int) or batches < 1:
            raise ValueError(f"Trial: batches is {batches!r}; it must be a whole number of at least 1")
        self.batches = batches
        self.predict = predict
        self._part = ""

    def on_fit_start(self, state: State) -> None:
        """Try, and put everything back."""
        if state.progress.step > 0:
            return
        names = ("mode", "hooks", "metrics", "results", "latest", "points", "batch", "output", "loss")
        kept = {name: getattr(state, name) for name in (*names, "current_step")}
        engine = state.engine
        listeners, items = (engine.before_step, engine.after_step), engine.items
        # What task.state_dict() leaves out: buffers that are not persistent.
        buffers = [(buffer, buffer.clone()) for buffer in state.task.buffers()]
        self._part = "a checkpoint"
        try:
            contents = snapshot(capture(state))
            try:
                state.hooks = Hooks()
                state.results = dict(state.results)
                engine.before_step = engine.after_step = ()
                self._try(state)
            finally:
                for name, value in kept.items():
                    setattr(state, name, value)
                (engine.before_step, engine.after_step), engine.items = listeners, items
                engine.clear_gradients()
                restore(state, contents)
                state.results, state.latest = kept["results"], kept["latest"]
                with torch.no_grad():
                    for buffer, value in buffers:
                        buffer.copy_(value)
        except Exception as error:
            error.add_note(f"This was {self._part} in the trial before the run (treadle.callbacks.Trial).")
            if self._part == PREDICTION:
                error.add_note("Where a task predicts from something else: callbacks=[Trial(predict=False)].")
            raise

    def _try(self, state: State) -> None:
        self._part = "a training step"
        state.current_step = 1
        batches = self._look(state.train_batches, self.batches * state.accumulate)
        for start in range(0, len(batches), state.accumulate):
            state.turn(state.engine.split(batches[start : start + state.accumulate]), state)
        state.values.flush()
        read_counters(state.metrics, "train")
        for mode, evaluated in state.evaluations.items():
            self._part = f"an evaluation of {mode!r}"
            with state.looking(mode):
                self._evaluate(state, mode, evaluated)
        self._part = PREDICTION
        with state.looking("predict"):
            for batch in batches[:1] if self.predict else ():
                self._predict(state, batch)

    def _evaluate(self, state: State, mode: str, evaluated: Batches) -> None:
        engine, task = state.engine, state.task
        state.metrics = counters(task.metrics, engine.device)
        for batch in self._look(evaluated, self.batches):
            state.batch = engine.move(batch)
            engine.items = task.num_items(state.batch)
            with engine.autocast():
                task.eval_step(state.batch, state)
        state.values.flush()
        read_counters(state.metrics, mode)

    def _predict(self, state: State, batch: Any) -> None:
        try:
            with state.engine.autocast():
                state.task.predict_step(state.engine.move(batch), state)
        except NotImplementedError:  # a task that says it does not predict
            return

    def _look(self, batches: Batches, count: int) -> list[Any]:
        """The first batches, read in the way that leaves no trace in what training reads."""
        iterator = batches.look()
        try:
            return list(islice(iterator, count))
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()
