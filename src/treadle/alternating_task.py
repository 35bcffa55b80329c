"""Several losses, each with an optimizer of its own."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from treadle.state import State
from treadle.task import Loss, Task


class AlternatingTask(Task):
    """Optimizers that take turns, each with the losses that are its own.

    `compute_loss` returns several losses by name, and `configure_optimizers` several optimizers. In a step
    every optimizer in its order goes through the window, adds up the gradients of its losses (times their
    weights), and steps; the next one sees the parameters that it left. So losses may share parameters, and
    optimizers may too: a loss moves nothing but the parameters of its own optimizers. Each turn is a
    forward pass of its own. Put it in front of another task: `class MyTask(AlternatingTask, SupervisedTask)`.

    Metrics are counted in the first turn. Every loss is logged where it is minimised, and "loss" is the
    weighted sum of all, as in evaluation.

    Attributes:
        turns: the losses of each optimizer by its name; one without an entry has the loss of its own name.
    """

    turns: Mapping[str, Sequence[str]] = {}
    _turn: str | None = None

    def train_step(self, window: Sequence[Any], state: State) -> None:
        """One turn of every optimizer over a window of micro-batches; each is a step of `Task`.

        Raises:
            ValueError: an optimizer's loss does not exist, or a loss has no optimizer.
        """
        counted = state.metrics
        try:
            for name in self.optimizers:
                self._turn = name
                super().train_step(window, state)
                state.metrics = {}
        finally:
            state.metrics, self._turn = counted, None

    def combine(self, loss: Loss, state: State) -> Tensor:
        """The weighted sum of the losses whose turn it is; of all, while evaluating."""
        if self._turn is None:
            return super().combine(loss, state)
        turns = {name: tuple(self.turns.get(name, (name,))) for name in self.optimizers}
        played = [name for names in turns.values() for name in names]
        if not isinstance(loss, Mapping) or set(played) != set(loss):
            given = sorted(loss) if isinstance(loss, Mapping) else "a single loss without a name"
            raise ValueError(
                f"{type(self).__name__}: the turns are {turns}, and compute_loss gives {given}; every loss "
                "needs an optimizer of its name, or a place in `turns`"
            )
        own = {name: loss[name] * self.loss_weights.get(name, 1.0) for name in turns[self._turn]}
        for name in own:
            state.log(name, loss[name])
        # What one name is logged with in one step is averaged over the turns; times their number is the sum.
        parts = [value.detach() / played.count(name) for name, value in own.items()]
        state.log("loss", functools.reduce(torch.add, parts) * len(turns))
        return functools.reduce(torch.add, own.values())

    def optimizer_step(self, state: State) -> None:
        """Step the optimizer whose turn it is, and clear all gradients."""
        assert self._turn is not None
        state.engine.step(self.optimizers[self._turn])
