"""Learning rates that are a pure function of the step number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

Curve = Callable[[int], float]
"""From the number of optimizer steps done to a factor on the learning rate."""


class CurveScheduler(LRScheduler):
    """Sets the learning rate of step s + 1 to the optimizer's own times curve(s).

    Nothing is carried from step to step, so a run that goes on from a checkpoint has the rates of one that
    was never cut, to the last bit; and where the curve has become another one (a longer run), it follows the
    new one from its next step on.

    Args:
        optimizer: whose parameter groups' learning rates are set; each keeps its own as the factor's base.
        curve: one for all groups, or one for each.

    Raises:
        ValueError: there are not as many curves as groups.
    """

    base_lrs: list[Any]
    last_epoch: int

    def __init__(self, optimizer: Optimizer, curve: Curve | Sequence[Curve]) -> None:
        groups = len(optimizer.param_groups)
        self._curves = [curve] * groups if callable(curve) else list(curve)
        if len(self._curves) != groups:
            raise ValueError(
                f"schedule: {len(self._curves)} functions are given for {groups} parameter groups; give one "
                "for all, or one for each"
            )
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """The learning rate of each group for the step to come."""
        return [
            base * curve(self.last_epoch) for base, curve in zip(self.base_lrs, self._curves, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """The step number and the groups' base rates; the curve is the configuration's."""
        return {name: value for name, value in super().state_dict().items() if name != "_curves"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the saved step: the rates of the step to come are computed anew."""
        super().load_state_dict(state_dict)
        self._update_lr(self.last_epoch)
