"""Averages of the weights along the way, evaluated in place of the weights themselves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from treadle.callbacks.batch_norms import measure_batch_norms
from treadle.data import Batches, as_source
from treadle.events import Callback, Every
from treadle.state import State
from treadle.strategy import Strategy


class WeightAveraging(Callback):
    """The plain average of the weights along the way (Polyak and Juditsky 1992). The variants subclass it.

    Averages of parameters and of floating-point buffers lie on the device, in float32 where the weights
    are in less; other buffers are copied. While the fit evaluates or predicts, the averages take the
    weights' place; training and its checkpoints go on with the weights. The averages and their count are
    in every checkpoint, so a resumed run has the same averages bit for bit.

    Statistics of BatchNorm are averaged like other buffers, which is not what the averaged weights would
    have seen. With `batch_norm_data` they are computed anew, in one pass over these data, whenever the
    averages are put in place.

    Args:
        start: the averaging begins after this: a whole number of optimizer steps, or a float from 0 to
            below 1, a part of the run (whose length must then be known).
        every: how often the weights are taken in, in steps or in epochs.
        replace_at_end: whether the task has the averages when the fit is over. Checkpoints hold the weights
            as trained all the same, so that the run can go on.
        batch_norm_data: a `Loader` or whatever else `Trainer.fit` takes as training data.

    Attributes:
        count: how often weights were taken in.

    Raises:
        ValueError: `start` is out of range, `every` has not exactly one of steps and epochs; when a fit
            starts: `start` is a part of a run of unknown length, or a checkpoint has other names.
    """

    # Early, so that the averages are in place before others look, and taken in before a checkpoint.
    order = -500.0

    def __init__(
        self,
        start: int | float = 0,
        every: Every = Every(steps=1),  # noqa: B008 - read, never changed
        replace_at_end: bool = True,
        batch_norm_data: Any = None,
    ) -> None:
        own = type(self).__name__
        if isinstance(start, bool) or not start >= 0 or (isinstance(start, float) and start >= 1):
            raise ValueError(
                f"{own}: start is {start!r}; it must be a number of steps, or a float from 0.0 to below 1.0"
            )
        if not isinstance(every, Every) or (every.steps is None) == (every.epochs is None) or every.seconds:
            raise ValueError(f"{own}: every is {every!r}; give treadle.Every(steps=...) or Every(epochs=...)")
        self.start = start
        self.every = every
        self.replace_at_end = replace_at_end
        self.batch_norm_data = batch_norm_data
        self.count = self._first = self._epoch = 0
        self._moved = self._ended = False
        self._run: Any = None
        self._strategy = Strategy(torch.device("cpu"))
        self._live: dict[str, Tensor] = {}
        self._averaged, self._copied = list[list[str]](), set[str]()
        self._averages: dict[str, Tensor] = {}
        self._kept: list[Tensor] | None = None
        self._batches: Batches | None = None

    def share(self, count: int) -> float:
        """The part that the present weights get in the average, when `count` were taken in before them."""
        return 1.0 / (count + 1)

    def averages(self) -> dict[str, Tensor]:
        """Copies of the averages by the names of `task.state_dict()`, lying as they do; empty at first."""
        return {name: value.clone() for name, value in self._averages.items()}

    @contextmanager
    def in_place(self, state: State) -> Iterator[None]:
        """The averages in place of the weights, during a fit."""
        self._put_in(state)
        try:
            yield
        finally:
            self._take_out(state)

    # -- state ---------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The averages, and what says when the next one is due."""
        averages = {name: self._strategy.tensor_to_save(value) for name, value in self._averages.items()}
        return {"count": self.count, "epoch": self._epoch, "averages": averages}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned; it is moved to the device when it is used."""
        self.count, self._epoch = int(state["count"]), int(state["epoch"])
        self._averages = dict(state["averages"])
        if self._live:
            self._place()

    def on_fit_start(self, state: State) -> None:
        """Find the weights, and what an earlier part of the run has averaged."""
        if state.progress.step == 0:
            self.count, self._epoch, self._averages = 0, 0, {}
        self._first = self._first_step(state)
        self._moved = self._ended = False
        self._kept = None
        self._run = state.run
        self._strategy = state.engine.strategy
        self._live = {**dict(state.task.named_parameters()), **dict(state.task.named_buffers())}
        averaged = [name for name, value in self._live.items() if value.is_floating_point()]
        alike: dict[Any, list[str]] = {}  # torch averages at once what is sharded alike
        for name in averaged:
            alike.setdefault(getattr(self._live[name], "device_mesh", None), []).append(name)
        self._averaged, self._copied = list(alike.values()), self._live.keys() - set(averaged)
        self._place()

    def _first_step(self, state: State) -> int:
        if isinstance(self.start, int):
            return self.start
        if state.total_steps is None:
            raise ValueError(
                f"{type(self).__name__}: start is {self.start}, a part of the run, and the length of the run "
                "is not known; give a number of steps"
            )
        return math.floor(self.start * state.total_steps)

    def _place(self) -> None:
        if self._averages and self._averages.keys() != self._live.keys():
            other = sorted(self._averages.keys() ^ self._live.keys())
            raise ValueError(f"{type(self).__name__}: the checkpoint's averages are of another task: {other}")
        like = self._strategy.tensor_like
        self._averages = {n: like(average, self._live[n]).clone() for n, average in self._averages.items()}

    # -- taking weights in ---------------------------------------------------------------------------------

    def on_after_optimizer_step(self, state: State) -> None:
        """The weights have moved."""
        self._moved = True

    def on_step_start(self, state: State) -> None:
        """Take in the step before, where its end was cut off."""
        self._take_in(state)

    def on_step_end(self, state: State) -> None:
        """Take in the weights of this step where they are due."""
        self._take_in(state)

    def on_epoch_end(self, state: State) -> None:
        """Take in the weights of this epoch where they are due."""
        self._take_in(state)

    @torch.no_grad()
    def _take_in(self, state: State) -> None:
        """Once for each step or epoch that is due, whoever comes first: its end, or its evaluation."""
        progress = state.progress
        if self.every.steps is not None:
            due = self._moved and self.every.at_step(progress.step)
        else:
            due = progress.epoch > self._epoch and self.every.at_epoch(progress.epoch)
        self._moved, self._epoch = False, progress.epoch
        if not due or progress.step <= self._first:
            return
        if not self._averages:
            self._averages = {name: _wide(value).clone() for name, value in self._live.items()}
        else:
            for names in self._averaged:
                averages = [self._averages[name] for name in names]
                torch._foreach_lerp_(averages, [_wide(self._live[n]) for n in names], self.share(self.count))
            for name in self._copied:
                self._averages[name].copy_(self._live[name])
        self.count += 1

    # -- putting averages in place -------------------------------------------------------------------------

    def on_eval_start(self, state: State) -> None:
        """Evaluate the averages."""
        if self._live:
            if state.run is self._run:  # and no look at the model that a callback of the fit takes
                self._take_in(state)
            self._put_in(state)

    def on_eval_end(self, state: State) -> None:
        """Training goes on with the weights."""
        self._take_out(state)

    def on_predict_start(self, state: State) -> None:
        """Predict with the averages."""
        self.on_eval_start(state)

    def on_predict_end(self, state: State) -> None:
        """Training goes on with the weights."""
        self._take_out(state)

    def on_exception(self, state: State) -> None:
        """An evaluation may have been cut off."""
        self._take_out(state)

    def on_fit_end(self, state: State) -> None:
        """The averages may stay, once everything is saved."""
        self._take_in(state)
        self._ended = not state.interrupted

    def on_cleanup(self, state: State) -> None:
        """Put the weights back, or the averages in for good."""
        self._take_out(state)
        if self._ended and self.replace_at_end and self._averages:
            with state.looking("average"):
                self._put_in(state)
        if self._batches is not None:
            self._batches.close()
        self._live, self._kept, self._batches, self._run = {}, None, None, None

    @torch.no_grad()
    def _put_in(self, state: State) -> None:
        if not self._averages or self._kept is not None:
            return
        live = list(self._live.values())
        self._kept = [value.detach().clone() for value in live]
        for value, average in zip(live, self._averages.values(), strict=True):
            value.copy_(average)
        if self.batch_norm_data is not None:
            if self._batches is None:
                source = as_source(self.batch_norm_data, batch_size=256, name="batch_norm_data").in_order()
                self._batches = source.open(0)
            measure_batch_norms(state, self._batches)

    @torch.no_grad()
    def _take_out(self, state: State) -> None:
        if self._kept is not None:
            for value, kept in zip(self._live.values(), self._kept, strict=True):
                value.copy_(kept)
            self._kept = None


def _wide(value: Tensor) -> Tensor:
    """In at least single precision: in half precision an average would stop moving."""
    detached = value.detach()
    narrow = detached.is_floating_point() and detached.element_size() < 4
    return detached.float() if narrow else detached
