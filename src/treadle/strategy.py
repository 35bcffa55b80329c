"""One process, one device: the base class of all strategies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Items = int | float | Tensor
"""How many items a batch has: a number, or a tensor on the device (tokens that only it has counted)."""


class Strategy:
    """One process on one device. Others override what several processes do differently."""

    is_shared: bool = False
    """Whether several processes share each step."""

    shards_checkpoints: bool = False
    """Whether each process writes a part of every checkpoint."""

    rank: int = 0
    world_size: int = 1

    data_rank: int = 0
    """Which share of every batch this process has, among `data_size`; tensor parallel ones have the same."""

    data_size: int = 1

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @property
    def keeps_gradients(self) -> bool:
        """Whether what a task keeps of its gradients from step to step is kept on this process."""
        return True

    @property
    def is_main(self) -> bool:
        """Whether this process prints and writes the record."""
        return self.rank == 0

    def join(self) -> None:
        """Meet the other processes, before anything else is done."""

    def setup(self, task: nn.Module) -> None:
        """Place the task's parameters and buffers, before the optimizers are made."""
        task.to(self.device)

    def kind_of(self, module: nn.Module) -> type[nn.Module]:
        """The class that a module of the task was made as, whatever `setup` has made of it."""
        return type(module)

    def setup_to_look(self, task: nn.Module) -> None:
        """Place the task where it is only evaluated."""
        self.setup(task)

    def shares(self, items: Sequence[Items]) -> tuple[list[float | Tensor], Items]:
        """Each micro-batch's part of the step's items, and their total over all processes.

        The parts add up to one, so a step's gradient is the gradient of the mean over all its items.
        """
        total = sum(items[1:], start=items[0])
        if isinstance(total, Tensor):
            whole = torch.where(total > 0, total, 1)  # without waiting to see whether there are any
            return [count / whole for count in items], total
        return [count / total if total else 0.0 for count in items], total

    def sync_gradients(self, last: bool) -> None:
        """Called before each micro-batch; `last` is the one after which gradients must be complete."""

    def reduce(self, numbers: list[float]) -> list[float]:
        """Add numbers over all processes."""
        return numbers

    def optimizer_state(self, task: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
        """An optimizer's state, whole on this process."""
        return optimizer.state_dict()

    def load_optimizer(self, task: nn.Module, optimizer: Optimizer, state: dict[str, Any]) -> None:
        """Take back what `optimizer_state` returned."""
        optimizer.load_state_dict(state)

    def load_model(self, task: nn.Module, state: dict[str, Any]) -> None:
        """Take back what `model_state` returned.

        Raises:
            RuntimeError: names or shapes are not this task's.
        """
        task.load_state_dict(state)

    def model_state(self, task: nn.Module) -> dict[str, Any]:
        """The task's state under its plain names, free of wrappers' prefixes."""
        return task.state_dict()

    def weights(self, task: nn.Module) -> Mapping[str, Any]:
        """What `model_state` has, each whole only while it is looked at; all processes look in one order."""
        return self.model_state(task)

    def tensor_to_save(self, value: Tensor) -> Any:
        """What a checkpoint holds of a tensor that lies as a parameter or buffer does."""
        return value

    def tensor_like(self, value: Any, like: Tensor) -> Tensor:
        """A tensor out of a checkpoint where `like` lies, a parameter or a buffer."""
        moved: Tensor = value.to(like.device)
        return moved

    def model_to_save(self, task: nn.Module) -> dict[str, Any]:
        """What a checkpoint holds of the task."""
        return self.model_state(task)

    def optimizer_to_save(self, task: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
        """What a checkpoint holds of an optimizer."""
        return self.optimizer_state(task, optimizer)
