"""torch's DistributedDataParallel: gradients are averaged while the backward pass runs."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn
from torch.distributed._composable.replicate import replicate
from torch.nn.parallel import DistributedDataParallel

from treadle.parallel.all_reduce import AllReduce

_SYNC_BUFFERS = (
    "forward_sync_buffers"
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else "broadcast_buffers"
)


class DDP(AllReduce):
    """Data parallel with torch's DDP around each child of the task, in place: no wrapper, no prefixes.

    It fits a task whose losses come from calls of its children (`self.model(x)`), each parameter taking
    part in every step. The reducer needs every rank in every step, so a rank without samples runs the
    model on a batch of none; layers that refuse one (batch normalisation) want `AllReduce`.

    Args:
        device, timeout: see `AllReduce`.
        **options: of `torch.nn.parallel.DistributedDataParallel`, such as find_unused_parameters=True.

    Raises:
        ValueError: when a fit starts: the task has parameters of its own, outside its children.
    """

    averages = True
    skips_empty = False

    def __init__(self, device: torch.device | None = None, timeout: float = 1800.0, **options: Any) -> None:
        super().__init__(device, timeout)
        # Buffers are broadcast once a step instead, after it.
        self.options = {_SYNC_BUFFERS: False, **options}
        self._replicas: list[nn.Module] = []

    def setup(self, task: nn.Module) -> None:
        """Place the task and have its children's gradients averaged."""
        super().setup(task)
        own = [name for name, _ in task.named_parameters(recurse=False)]
        if own:
            raise ValueError(
                f"DDP: {type(task).__name__} has the parameters {own} itself, outside its children, where "
                'their gradients are not averaged; put them into a module, or use strategy="all_reduce"'
            )
        self._replicas = [
            child for child in task.children() if any(p.requires_grad for p in child.parameters())
        ]
        for child in self._replicas:
            if not hasattr(child, "set_requires_gradient_sync"):  # of an earlier fit
                replicate(child, **self.options)

    def setup_to_look(self, task: nn.Module) -> None:
        """Only place it: without gradients there is nothing to average."""
        super().setup(task)

    def sync_gradients(self, last: bool) -> None:
        """Average after the last micro-batch only."""
        for child in self._replicas:
            child.set_requires_gradient_sync(last)  # type: ignore[operator]

    def complete_gradients(self, parameters: Any) -> None:
        """They are averaged already."""
