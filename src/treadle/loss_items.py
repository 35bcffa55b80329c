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
    """A `functools.partial` whose tensors go to the device with the task; its arguments are attributes.

    Args:
        partial: a loss of (output, target) with some arguments given by name.
    """

    def __init__(self, partial: functools.partial[Any]) -> None:
        super().__init__()
        self.function = partial.func
        self._positional = partial.args
        self._names = tuple(partial.keywords)
        for name, value in partial.keywords.items():
            if isinstance(value, Tensor):
                self.register_buffer(name, value, persistent=False)
            else:
                setattr(self, name, value)

    def forward(self, *inputs: Any) -> Any:
        """The loss."""
        return self.function(
            *self._positional, *inputs, **{name: getattr(self, name) for name in self._names}
        )

    def extra_repr(self) -> str:
        """What it calls."""
        return getattr(self.function, "__name__", repr(self.function))


def with_tensors(loss: Any) -> Any:
    """The loss; as a module, if it is a partial with tensors by name."""
    plain = isinstance(loss, functools.partial) and all(name.isidentifier() for name in loss.keywords)
    tensors = plain and any(isinstance(value, Tensor) for value in loss.keywords.values())
    return PartialLoss(loss) if tensors else loss


def items_of(loss: Any) -> Callable[[Tensor], Tensor] | None:
    """What counts the items that a loss of torch's is the mean of, where those are not the samples.

    That is where classes have weights, or some targets are ignored by the user's own number: cross entropy
    and the negative log likelihood divide by the sum of the weights of the targets that count.
    """
    weighted = isinstance(loss, _WEIGHTED_MODULES) or getattr(loss, "function", None) in _WEIGHTED
    partial = isinstance(loss, functools.partial) and loss.func in _WEIGHTED
    if not (weighted or partial):
        return None
    given = loss.keywords.get if partial else lambda name, default: getattr(loss, name, default)
    ignored = given("ignore_index", _IGNORED)
    if given("reduction", "mean") != "mean" or (given("weight", None) is None and ignored == _IGNORED):
        return None

    def count(target: Tensor) -> Tensor:
        counts: Tensor = target != ignored
        weight: Tensor | None = given("weight", None)  # looked up each time: it moves to the device
        if weight is None:
            return counts.sum()
        return weight[torch.where(counts, target, 0)].mul(counts).sum()

    return count
