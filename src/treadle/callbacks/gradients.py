"""The gradients of a task, layer by layer."""

from __future__ import annotations

from torch import Tensor, nn


def gradients_by_layer(task: nn.Module) -> dict[str, list[Tensor]]:
    """The gradients there are, by the module that holds the parameters ("" for the task itself)."""
    layers: dict[str, list[Tensor]] = {}
    for name, parameter in task.named_parameters():
        if parameter.grad is not None:
            layers.setdefault(name.rpartition(".")[0], []).append(parameter.grad.detach())
    return layers
