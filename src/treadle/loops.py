"""The loops: fit, train_epoch, train_step, evaluate, predict. Plain functions over `State`.

fit
    on_fit_start
    while epochs and steps remain and nobody asked to stop:
        train_epoch
            on_epoch_start
            for each window of `accumulate` batches:
                train_step
                    on_step_start; task.train_step; count it; read values and evaluate where due; on_step_end
            evaluate where due; tick schedules; write the epoch's row; on_epoch_end
    on_fit_end
    on_exception if something is raised; on_cleanup always
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from itertools import islice
from typing import Any

from treadle.data import Batches, samples_in
from treadle.events import CancelBatch, CancelEpoch, CancelFit, CancelStep
from treadle.log import counters
from treadle.state import State


def fit(state: State) -> None:
    """Train until the epochs or steps are done or somebody asks to stop; see this file's docstring."""
    hooks = state.hooks
    with ExitStack() as cleanup:
        for hook in reversed(hooks.on_cleanup):
            cleanup.callback(hook, state)
        cleanup.callback(state.engine.abandon)
        try:
            for hook in hooks.on_fit_start:
                hook(state)
            while state.goes_on():
                state.train_epoch(state)
            for hook in hooks.on_fit_end:
                hook(state)
        except CancelFit as cancel:
            state.values.drop_after(state.progress.step)
            state.flush()
            state.request_stop(str(cancel) or "cancelled")
        except BaseException as error:
            state.exception = error
            for hook in hooks.on_exception:
                hook(state)
            raise


def train_epoch(state: State) -> None:
    """One pass over the training data from where the run stands, and the epoch's evaluation."""
    hooks, progress = state.hooks, state.progress
    start, steps_before, began = progress.batch, progress.step, time.time()
    state.seconds_looking = 0.0
    stopped = state.stop_reason is not None  # a kill cut off this epoch's end: only that is made up for
    complete = cancelled = state.ended = False
    try:
        for hook in hooks.on_epoch_start:
            hook(state)
        batches = iter(() if stopped else state.train_batches.iterate(progress.epoch, start))
        # Windows of `accumulate` batches, the last perhaps shorter; none is fetched before its step.
        for window in iter(lambda: list(islice(batches, state.accumulate)), []):
            train_step(window, state)
            if state.stop_reason is not None or progress.step == state.max_steps:
                break
        else:
            if start == 0 and progress.step == steps_before:
                raise ValueError("the training data gave no batch: no samples, or drop_last left none")
            complete = not stopped
    except CancelEpoch:
        state.engine.abandon()
        state.values.drop_after(progress.step)
        complete = cancelled = True
    if state.interrupted:  # to be resumed in the middle of this epoch, as if nothing had happened
        state.flush()
        return
    _finish_epoch(state, complete or progress.batch == state.train_batches.length, began)
    state.ended = True
    if not cancelled:
        with suppress(CancelEpoch):
            for hook in hooks.on_epoch_end:
                hook(state)


def train_step(window: Sequence[Any], state: State) -> None:
    """One optimizer step over a window of loader batches."""
    hooks, progress = state.hooks, state.progress
    state.current_step = progress.step + 1
    cancelled = False
    try:
        for hook in hooks.on_step_start:
            hook(state)
        state.turn(state.engine.split(window), state)
    except (CancelStep, CancelBatch):
        state.engine.abandon()
        cancelled = True
    progress.step += 1
    progress.batch += len(window)
    progress.samples += samples_in(window)
    if state.log_every.at_step(progress.step):
        state.flush()
    if state.eval_steps is not None and state.eval_steps.at_step(progress.step):
        results = _evaluate_all(state)
        state.run.append_steps([(name, progress.step, value) for name, value in results.items()])
    if not cancelled:
        try:
            for hook in hooks.on_step_end:
                hook(state)
        except (CancelStep, CancelBatch):
            pass


def evaluate(state: State, batches: Batches, mode: str) -> dict[str, float]:
    """Loss and metrics over all batches, every sample once, weighted by items: {"val/loss": ...}.

    The model is in eval mode, without gradients; the training's generators are left as they were.
    """
    hooks, engine, task = state.hooks, state.engine, state.task
    with state.looking(mode):
        state.metrics = counters(task.metrics, engine.device)
        state.eval_batches = batches.length
        eval_step = engine.autocasting(task.eval_step)
        with suppress(CancelEpoch):  # what is counted by then is the result
            for hook in hooks.on_eval_start:
                hook(state)
            for batch in engine.moved(batches.look()):
                try:
                    state.batch = batch
                    engine.items = task.num_items(batch)
                    for hook in hooks.on_eval_batch_start:
                        hook(state)
                    eval_step(state.batch, state)
                    for hook in hooks.on_eval_batch_end:
                        hook(state)
                except (CancelBatch, CancelStep):
                    continue
        state.values.flush()
        results: dict[str, float] = state.values.means() | engine.read_counters(state.metrics, mode)
        state.results.update(results)
        state.latest.update(results)
        with suppress(CancelEpoch):
            for hook in hooks.on_eval_end:
                hook(state)
    return results


def predict(state: State, batches: Batches, keep: Callable[[Any], None]) -> None:
    """Hand what `task.predict_step` says of every batch, in data order, to `keep`."""
    hooks, engine, task = state.hooks, state.engine, state.task
    with state.looking("predict"):
        state.eval_batches = batches.length
        for hook in hooks.on_predict_start:
            hook(state)
        predict_step = engine.autocasting(task.predict_step)
        for batch in engine.moved(batches.look()):
            state.batch = batch
            for hook in hooks.on_predict_batch_start:
                hook(state)
            state.output = predict_step(state.batch, state)
            keep(state.output)
            for hook in hooks.on_predict_batch_end:
                hook(state)
        for hook in hooks.on_predict_end:
            hook(state)


def _evaluate_all(state: State) -> dict[str, float]:
    looks = [evaluate(state, batches, mode) for mode, batches in state.evaluations.items()]
    return {name: value for results in looks for name, value in results.items()}


def _finish_epoch(state: State, complete: bool, began: float) -> None:
    """Evaluate where due, tick the epoch's schedules, write the epoch's row."""
    epoch = state.progress.epoch + 1
    seconds = time.time() - began - state.seconds_looking
    row = state.row = state.epoch_results(complete)
    if state.evaluates_after(epoch):
        row.update(_evaluate_all(state))
    row.update(state.learning_rates())
    for hook in state.hooks.on_epoch_results:
        hook(state)
    state.results.update(row)
    if complete:
        for schedule in state.schedules.values():
            if schedule.every == "epoch":
                schedule.step(row)
    row |= {"time/start": began, "time/end": time.time(), "time/epoch": seconds, **state.times}
    state.run.append_epoch(epoch, state.progress.step, row)
