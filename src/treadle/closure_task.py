"""Optimizers that evaluate the loss several times within one step, such as L-BFGS."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from treadle.events import Hooks
from treadle.precision import ScaledFloat16
from treadle.state import State
from treadle.strategy import Items
from treadle.supervised_task import SupervisedTask
from treadle.task import Task


class ClosureTask(Task):
    """A task whose optimizers are given a closure that evaluates the whole window anew.

    Put it in front of another task: `class MyTask(ClosureTask, SupervisedTask)`; for a model and a loss
    there is `SupervisedClosureTask`. The first evaluation of a step is that of every other task: with its
    hooks, metrics and logged values, and its gradients are what `on_before_optimizer_step` sees and the
    trainer clips. Then `optimizer.step(closure)` is called; the closure clears the gradients, goes through
    all micro-batches of the window, and returns the step's loss, without hooks or logging. Where it is asked
    first at the very parameters of the first evaluation, as L-BFGS does, it answers with that one.

    Clipping does not touch the gradients of later evaluations, so leave it off for L-BFGS. A cancelled batch
    cancels the step: the optimizer could not evaluate a part of it again and again.
    """

    def train_step(self, window: Sequence[Any], state: State) -> None:
        """One optimizer step: evaluate the window; optimizer_step with the closure.

        Raises:
            ValueError: the precision scales the loss, which an optimizer with a closure cannot undo.
        """
        if isinstance(state.engine.precision, ScaledFloat16):
            raise ValueError(
                f"{type(self).__name__}: precision 'fp16' scales the loss, and an optimizer that evaluates "
                "it again and again would see scaled gradients; use 'fp32' or 'bf16'"
            )
        items = self.items(window)
        evaluation = Evaluation(self, window, items, state, self.evaluate_window(window, items, state))
        with ExitStack() as stack:
            for optimizer in self.optimizers.values():
                stack.callback(optimizer.register_step_pre_hook(evaluation.give).remove)
            self.optimizer_step(state)

    def evaluate_window(self, window: Sequence[Any], items: Sequence[Items], state: State) -> Tensor:
        """Add the gradients of all micro-batches; returns the step's loss, a scalar on the device.

        Args:
            window: the micro-batches of the step.
            items: how many items each has.
            state: what the loop knows; its hooks are called.
        """
        hooks, total = state.hooks, torch.zeros((), device=state.engine.device)
        for batch, share in state.engine.microbatches(window, items):
            state.batch = batch
            for hook in hooks.on_batch_start:
                hook(state)
            with state.engine.autocast():
                state.loss = self.combine(self.compute_loss(state.batch, state), state)
            for hook in hooks.on_after_loss:
                hook(state)
            self.backward(state.loss, share, state)
            total = total + state.loss.detach() * share
            for hook in hooks.on_after_backward:
                hook(state)
            for hook in hooks.on_batch_end:
                hook(state)
        return total


class SupervisedClosureTask(ClosureTask, SupervisedTask):
    """A model, a loss, and an optimizer that takes a closure: `SupervisedTask` for torch.optim.LBFGS."""


class Evaluation:
    """The closure of one step.

    Args:
        task, window, items, state: what is evaluated.
        loss: the loss of the first evaluation, whose gradients are there.
    """

    def __init__(
        self, task: ClosureTask, window: Sequence[Any], items: Sequence[Items], state: State, loss: Tensor
    ) -> None:
        self._task, self._window, self._items, self._state = task, window, items, state
        self._loss: Tensor | None = loss
        self._given: list[Optimizer] = []
        self._parameters = [parameter for parameter in task.parameters() if parameter.requires_grad]
        self._values = [parameter.detach().clone() for parameter in self._parameters]
        self._gradients = [parameter.grad for parameter in self._parameters]

    def give(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Hand the closure to `optimizer.step`: torch's pre-hook of a step.

        Only once: a step that calls its base class's step runs into the hook again.
        """
        if optimizer in self._given:
            return None
        self._given.append(optimizer)
        return (*args, self), kwargs

    def __call__(self) -> Tensor:
        """The loss of the window at the present parameters, with its gradients in place."""
        loss, self._loss = self._loss, None
        if loss is not None and self._is_where_it_was():
            return loss
        self._state.engine.clear_gradients()
        with torch.enable_grad(), _unheard(self._state):
            return self._task.evaluate_window(self._window, self._items, self._state)

    def _is_where_it_was(self) -> bool:
        kept = all(p.grad is grad for p, grad in zip(self._parameters, self._gradients, strict=True))
        # Waits for the device; optimizers that take a closure read its loss there anyway.
        return kept and all(map(torch.equal, self._parameters, self._values))


@contextmanager
def _unheard(state: State) -> Iterator[None]:
    """Nothing in here is logged, counted or listened to."""
    kept = (state.hooks, state.values, state.metrics, state.batch, state.output, state.loss)
    state.hooks, state.values, state.metrics = Hooks(), state.engine.new_log("train"), {}
    try:
        yield
    finally:
        state.hooks, state.values, state.metrics, state.batch, state.output, state.loss = kept
