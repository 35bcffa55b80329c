"""A loss's backward pass without the checks torch makes before each one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Variable

Backward = Callable[[Tensor, Tensor], None]
"""Adds to every gradient that of a scalar, times the second argument, a scalar of its type and device."""


@functools.cache
def direct_backward() -> Backward:
    """A function for `loss.backward(gradient)`, straight into autograd's engine where that does the same.

    Before it enters the engine, torch looks for subclasses, compares shapes and asks its logger, which
    together cost a fifth of a small model's backward pass. The engine is entered here without them, with
    the same arguments, so the numbers are the same bits. The entrance is no public one: it is tried here
    once, and where it is missing or does anything else, `Tensor.backward` is used. That is used for
    subclasses of Tensor always.
    """
    try:
        run: Callable[..., Any] = Variable._execution_engine.run_backward
        if not _agrees(run):
            return _backward
    except (AttributeError, TypeError, RuntimeError):
        return _backward

    def backward(loss: Tensor, gradient: Tensor) -> None:
        if type(loss) is not Tensor:
            _backward(loss, gradient)
            return
        run((loss,), (gradient,), False, False, (), allow_unreachable=True, accumulate_grad=True)

    return backward


def _backward(loss: Tensor, gradient: Tensor) -> None:
    loss.backward(gradient)  # type: ignore[no-untyped-call]


def _agrees(run: Callable[..., Any]) -> bool:
    """Whether the engine's own entrance leaves the gradients that `Tensor.backward` leaves."""
    with torch.enable_grad():
        mine, theirs = (torch.tensor([0.1, -0.7], requires_grad=True) for _ in range(2))
        third = torch.tensor(1 / 3)
        for _ in range(2):  # the second time it adds
            run((mine.exp().sum(),), (third,), False, False, (), allow_unreachable=True, accumulate_grad=True)
            _backward(theirs.exp().sum(), third)
    return mine.grad is not None and theirs.grad is not None and torch.equal(mine.grad, theirs.grad)
