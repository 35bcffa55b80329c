"""Losses whose mean is not over samples: what their items are, and tensors that they bring along."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_IGNORED = -100
_WEIGHTED = (functional.cross_entropy, functional.nll_loss)
_WEIGHTED_MODULES = (nn.CrossEntropyLoss, nn.NLLLoss)


class PartialLoss(nn.Module):
    """A `functools.partial` whose tensors go to the device with the task, and into no checkpoint.

    Args:
        partial: a loss of (output, target) with some arguments given by name.
    """

    def __init__(self, partial: functools.partial[Any]) -> None:
        super().__init__()
        self.partial = partial
        self._tensors: dict[str, str] = {}  # the names of the buffers, by those of the arguments
        for number, (name, value) in enumerate(partial.keywords.items()):
            if type(value) is Tensor:
                self._tensors[name] = f"tensor_{number}"
                self.register_buffer(self._tensors[name], value, persistent=False)

    def given(self, name: str, default: Any = None) -> Any:
        """An argument of the partial by name; a tensor where it is now."""
        buffer = self._tensors.get(name)
        return self.partial.keywords.get(name, default) if buffer is None else getattr(self, buffer)

    def forward(self, *inputs: Any) -> Any:
        """The loss."""
        return self.partial(*inputs, **{name: self.given(name) for name in self._tensors})

    def extra_repr(self) -> str:
        """What it calls."""
        return getattr(self.partial.func, "__name__", repr(self.partial.func))


def with_tensors(loss: Any) -> Any:
    """The loss; as a module, if it is a partial with tensors by name."""
    partial = isinstance(loss, functools.partial)
    tensors = partial and any(type(value) is Tensor for value in loss.keywords.values())
    return PartialLoss(loss) if tensors else loss


class ItemCount:
    """Counts the items that cross entropy or the negative log likelihood of some targets is the mean over.

    Args:
        ignored: the target that does not count.
        weight: of the classes; a copy stays on the host, where batches are counted before they move.
    """

    def __init__(self, ignored: int, weight: Tensor | None) -> None:
        self._ignored = ignored
        self._on_host = weight.detach().clone() if weight is not None and weight.is_cpu else None

    def __call__(self, loss: Any, target: Tensor) -> Tensor:
        """The sum of the weights of those targets that count; their number, where classes have no weights."""
        counts: Tensor = target != self._ignored
        weight: Tensor | None = _arguments(loss)("weight", None)
        if weight is None:
            return counts.sum()
        if target.is_cpu and not weight.is_cpu:
            if self._on_host is None:
                self._on_host = weight.detach().cpu()  # waits for the device, once
            weight = self._on_host
        return weight[torch.where(counts, target, 0).long()].mul(counts).sum()


def items_of(loss: Any) -> ItemCount | None:
    """What counts the items of a loss of torch's where those are not the samples.

    That is where classes have weights, or some targets are ignored by the user's own number: cross entropy
    and the negative log likelihood divide by the sum of the weights of the targets that count.
    """
    given = _arguments(loss)
    weight, ignored = given("weight", None), given("ignore_index", _IGNORED)
    plain = weight is None and ignored == _IGNORED
    return None if plain or given("reduction", "mean") != "mean" else ItemCount(ignored, weight)


def _arguments(loss: Any) -> Callable[..., Any]:
    """What gives an argument of one of these losses by name, or a default."""
    if type(loss) in _WEIGHTED_MODULES:  # a subclass may divide by something else
        return functools.partial(getattr, loss)
    if isinstance(loss, PartialLoss) and loss.partial.func in _WEIGHTED:
        return loss.given
    if isinstance(loss, functools.partial) and loss.func in _WEIGHTED:
        return loss.keywords.get
    return lambda name, default: default
