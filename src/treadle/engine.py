"""The verbs a step is written in: move, autocast, backward, step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from treadle.clipping import Clip
from treadle.data import Batches, mover, split
from treadle.direct_backward import direct_backward
from treadle.log import MetricLog, read_counters
from treadle.metrics import Metric
from treadle.pending import DevicePending, Pending
from treadle.precision import Precision
from treadle.schedules import BoundSchedule
from treadle.strategy import Items, Strategy

Share = float | Tensor
Listener = Callable[[], None]


class Engine:
    """How a step is carried out: strategy x precision, as verbs.

    Args:
        strategy: the processes and the device.
        precision: autocast and loss scaling.
        clip: what to do to the gradients before a step; see `Clip`.
        microbatch_size: split every batch into micro-batches of at most so many samples; None: as they come.

    Attributes:
        position: the number of the micro-batch under way within its step, from 0.
        stepping: the optimizers that step, while hooks before and after their step fire.
        is_last: whether the optimizer steps after the micro-batch under way.
        items: how many items the micro-batch under way has; after the last one, the items of the whole step.
    """

    def __init__(
        self,
        strategy: Strategy,
        precision: Precision,
        clip: Clip | None = None,
        microbatch_size: int | None = None,
    ) -> None:
        self.strategy = strategy
        self.precision = precision
        self.device = strategy.device
        self.items: Items = 1
        self.position = 0
        self.is_last = True
        self.stepping: tuple[Optimizer, ...] = ()
        self.autocast = precision.autocast
        self.autocasting = precision.around
        self.move = mover(strategy.device, non_blocking=strategy.device.type == "cuda")
        self.microbatch_size = microbatch_size
        self.before_step: tuple[Listener, ...] = ()
        self.after_step: tuple[Listener, ...] = ()
        self._clip = clip or Clip()
        self._backward = direct_backward()
        self._one = torch.ones(())
        self._parameters: list[nn.Parameter] = []
        self._zero_grad: Callable[[], None] = self.clear_gradients
        self._steppers: dict[Optimizer, Callable[[], Any]] = {}
        self._stepped: dict[Optimizer, list[nn.Parameter]] = {}
        self._groups: dict[Optimizer, int] = {}
        self._ticks: dict[Optimizer, tuple[BoundSchedule, ...]] = {}

    def setup(
        self,
        task: nn.Module,
        optimizers: Mapping[str, Optimizer],
        schedules: Mapping[str, BoundSchedule],
        zero_grad: Callable[[], None] | None = None,
    ) -> None:
        """Learn whose gradients to clear, what to clip and what ticks with each optimizer step.

        Args:
            task: what is trained, on its device already.
            optimizers: by name.
            schedules: by the optimizer's name; those that tick every step do so from `step`.
            zero_grad: the task's own way to clear gradients, where it has one.
        """
        self._parameters = list(task.parameters())
        self._zero_grad = zero_grad or self.clear_gradients
        self._steppers = {o: self.precision.stepper(o) for o in optimizers.values()}
        self._learn_parameters()
        self._ticks = {
            optimizer: (schedules[name],) if name in schedules and schedules[name].every == "step" else ()
            for name, optimizer in optimizers.items()
        }

    def _learn_parameters(self) -> None:
        """At set-up, and when an optimizer has got a group more: some layers begin to train during a run."""
        self._stepped = {o: [p for g in o.param_groups for p in g["params"]] for o in self._steppers}
        self._groups = {o: len(o.param_groups) for o in self._steppers}
        stepped = (parameter for parameters in self._stepped.values() for parameter in parameters)
        self._parameters = list(dict.fromkeys([*self._parameters, *stepped]))

    def split(self, window: list[Any]) -> list[Any]:
        """The micro-batches of a window of loader batches."""
        if self.microbatch_size is None:
            return window
        return [part for batch in window for part in split(batch, self.microbatch_size)]

    def microbatches(self, window: Sequence[Any], items: Sequence[Items]) -> Iterator[tuple[Any, Share]]:
        """Each micro-batch on the device, with its part of the step's items.

        Args:
            window: the micro-batches of one optimizer step.
            items: how many items each has; see `Task.items`.
        """
        shares, total = self.strategy.shares(items)
        last = len(window) - 1
        for position, batch in enumerate(window):
            self.items = items[position]
            self.position, self.is_last = position, position == last
            self.strategy.sync_gradients(self.is_last)
            yield self.move(batch), shares[position]
        self.items = total

    def moved(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The batches on the device."""
        return batches if self.device.type == "cpu" else map(self.move, batches)

    def backward(self, loss: Tensor, share: Share = 1.0) -> None:
        """Add the gradient of `share` times `loss`, a scalar that is the mean over its items."""
        loss = self.precision.scale(loss)
        if loss.ndim:  # no scalar: torch says what it allows
            (loss * share).backward()  # type: ignore[no-untyped-call]
            return
        # The share goes in as the gradient of the loss: the same bits as a product, without its two kernels.
        if isinstance(share, Tensor):
            gradient = share.to(loss.device, loss.dtype)
        elif share != 1.0:
            gradient = loss.new_full((), share)
        elif self._one.dtype is loss.dtype and self._one.device == loss.device:
            gradient = self._one
        else:
            gradient = self._one = torch.ones_like(loss, requires_grad=False)
        self._backward(loss, gradient)

    def step(self, *optimizers: Optimizer) -> None:
        """Unscale, clip, step each of the optimizers, clear all gradients, tick per-step schedules.

        A per-step schedule ticks with each call that steps its optimizer.

        All gradients of the task are cleared, also those of parameters that these optimizers do not hold:
        a generator's loss leaves gradients in the discriminator too.
        """
        precision = self.precision
        self.stepping = optimizers
        for optimizer in optimizers:
            if len(optimizer.param_groups) != self._groups[optimizer]:
                self._learn_parameters()
            precision.unscale(optimizer)
        for listener in self.before_step:
            listener()
        self._clip(self._stepped, optimizers)
        for optimizer in optimizers:
            self._steppers[optimizer]()
        precision.update()
        for listener in self.after_step:
            listener()
        self._zero_grad()
        for optimizer in optimizers:
            for schedule in self._ticks[optimizer]:
                schedule.step({})

    def abandon(self) -> None:
        """Give up the step under way: nothing of its gradients is left."""
        self.precision.abandon()
        self.clear_gradients()

    def clear_gradients(self) -> None:
        """Set every gradient to None, over a list made at set-up."""
        for parameter in self._parameters:
            parameter.grad = None

    def new_pending(self) -> Pending:
        """Where logged values wait for a log boundary."""
        return Pending() if self.device.type == "cpu" else DevicePending()

    # -- what several processes do together; see `treadle.parallel` -----------------------------------------

    def new_log(self, mode: str) -> MetricLog:
        """A log for the values of a loop."""
        return MetricLog(mode, self.new_pending())

    def read_counters(self, metrics: Mapping[str, Metric], mode: str) -> dict[str, float]:
        """The value of every metric by full name, over all processes."""
        return read_counters(metrics, mode)

    def gather(self, tree: Any) -> list[Any]:
        """Every process's tree of plain values and tensors, by rank."""
        return [tree]

    def gather_shares(self, tree: Any) -> list[Any]:
        """The trees of those processes that share each batch out, by `data_rank`."""
        return [tree]

    def to_train(self, batches: Batches) -> Batches:
        """Opened training data as the loops read them."""
        return batches

    def to_look(self, batches: Batches) -> Batches:
        """Opened data to evaluate or predict on as the loops read them."""
        return batches
