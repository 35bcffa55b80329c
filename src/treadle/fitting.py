"""`microbatch_size="auto"`: a step that does not fit into memory is tried again in smaller pieces."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch

from treadle import rng
from treadle.data import batch_items
from treadle.state import State


class Fitting:
    """Turns a window like `task.train_step`, halving the engine's micro-batch until it fits.

    A step that fails leaves nothing behind: generators, metrics, buffers, logged values and gradients are
    put back before it is tried again, so the run is the one that had the smaller size from the start. It
    costs a copy of these before every step, which is why a size that is known should be given.
    """

    def __init__(self, state: State) -> None:
        self._stepped = False
        state.engine.after_step = (*state.engine.after_step, self._note_step)

    def _note_step(self) -> None:
        self._stepped = True

    def __call__(self, window: Sequence[Any], state: State) -> None:
        """One optimizer step.

        Raises:
            torch.OutOfMemoryError: it does not fit sample by sample either, or memory ran out after an
                optimizer had stepped already, so that the step cannot be taken back.
        """
        engine, task = state.engine, state.task
        generators = rng.capture()
        buffers = [buffer.clone() for buffer in task.buffers()]
        metrics = {name: metric.state_dict() for name, metric in state.metrics.items()}
        while True:
            self._stepped = False
            try:
                task.train_step(engine.split(list(window)), state)
                return
            except torch.OutOfMemoryError:
                largest = max(batch_items(batch) for batch in engine.split(list(window)))
                if largest <= 1 or self._stepped:
                    raise
            engine.microbatch_size = -(-largest // 2)
            warnings.warn(
                f"out of memory with micro-batches of {largest} samples, now {engine.microbatch_size}",
                stacklevel=2,
            )
            engine.abandon()
            state.values.drop_after(state.progress.step)
            state.loss = state.output = state.batch = None  # what they hold is the memory that is missing
            for name, metric in state.metrics.items():
                metric.load_state_dict(metrics[name])
            with torch.no_grad():
                for buffer, kept in zip(task.buffers(), buffers, strict=True):
                    buffer.copy_(kept)
            rng.restore(generators)
