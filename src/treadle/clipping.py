"""What is done to gradients before a step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from treadle.norms import clip_norm


class Clip:
    """No clipping: the base class."""

    def __call__(
        self, parameters: Mapping[Optimizer, list[nn.Parameter]], optimizers: Iterable[Optimizer]
    ) -> None:
        """Change the gradients of the parameters that `optimizers` are about to step."""


class GradientClip(Clip):
    """Clip gradients by value first, then by the norm over all parameters that are stepped together.

    Args:
        norm: the largest 2-norm (Pascanu et al. 2013), or None.
        value: the largest absolute value of an element, or None.

    Raises:
        ValueError: one is not positive.
    """

    def __init__(self, norm: float | None = None, value: float | None = None) -> None:
        for name, given in (("clip_norm", norm), ("clip_value", value)):
            if given is not None and not (_is_number(given) and given > 0):
                raise ValueError(
                    f"Trainer: {name} is {given!r}; it must be a positive number, or None for no clipping"
                )
        self._norm = norm
        self._value = value

    def __call__(
        self, parameters: Mapping[Optimizer, list[nn.Parameter]], optimizers: Iterable[Optimizer]
    ) -> None:
        """Clip in place; nothing is read from the device."""
        stepped = [parameter for optimizer in optimizers for parameter in parameters[optimizer]]
        if self._value is not None:
            nn.utils.clip_grad_value_(stepped, self._value)
        if self._norm is not None:
            clip_norm(stepped, self._norm)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
