"""Norms over many tensors together, also where processes hold parts of them in different ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def gradient_norm(module: nn.Module) -> Tensor:
    """The 2-norm of all gradients of a module together, a scalar on their device; 0 where there are none.

    Where processes hold shards of them, it is that of the whole gradients, and all processes call this.
    """
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    return total_norm(gradients) if gradients else torch.zeros(())


def total_norm(tensors: Sequence[Tensor]) -> Tensor:
    """The 2-norm of one tensor or more together, a scalar.

    It is torch's, which stacks the norms of the tensors; those of different device meshes (tensor
    parallel layers, and the others) it cannot stack, so these are joined here.
    """
    norms: list[Any] = [nn.utils.get_total_norm(group) for group in _by_mesh(tensors)]
    whole: list[Tensor] = [norm.full_tensor() if hasattr(norm, "full_tensor") else norm for norm in norms]
    return whole[0] if len(whole) == 1 else torch.linalg.vector_norm(torch.stack(whole))


def clip_norm(parameters: Sequence[nn.Parameter], norm: float) -> None:
    """Scale the gradients in place so that their 2-norm together is at most `norm`."""
    groups = _by_mesh(parameters)
    if len(groups) == 1:
        nn.utils.clip_grad_norm_(groups[0], norm)
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if gradients:
        together = total_norm(gradients)
        for group in groups:
            nn.utils.clip_grads_with_norm_(group, norm, together)


def _by_mesh(tensors: Sequence[Tensor]) -> list[Sequence[Tensor]]:
    if not tensors or not hasattr(tensors[0], "device_mesh"):  # all are, or none is: see TensorParallel
        return [tensors]
    groups: dict[Any, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(getattr(tensor, "device_mesh", None), []).append(tensor)
    return list(groups.values())
