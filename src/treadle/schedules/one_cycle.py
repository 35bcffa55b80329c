"""One cycle: up, down, and the momentum the other way."""

from __future__ import annotations

import math
from typing import Any

from torch.optim import Optimizer

from treadle.schedules.constant import Constant, check_factor
from treadle.schedules.curve import Curve, CurveScheduler
from treadle.schedules.durations import Duration, Fraction, Horizon, as_duration, length_of, limited


class OneCycle(Constant):
    """Up to the optimizer's rate and down to almost nothing, on two half cosines (Smith and Topin 2018).

    The curve of torch's `OneCycleLR` with the optimizer's learning rate as its `max_lr`: the peak is at the
    last step of the rise, and the lowest rate at the run's last step.

    Args:
        rise: how long the rate rises.
        start: the factor of the first step.
        final: the factor of the last step.
        momentum: the lowest and the highest momentum (the first of the betas where the optimizer has
            those); it falls while the rate rises. None leaves it alone.
        total: the length of the cycle; None: the run's.

    Raises:
        ValueError: an argument is out of range; at the start of a fit: the optimizer has no momentum, or
            the run's length is not known.
    """

    def __init__(
        self,
        rise: Duration = Fraction(0.3),  # noqa: B008 - frozen
        start: float = 1 / 25,
        final: float = 1 / 25e4,
        momentum: tuple[float, float] | None = (0.85, 0.95),
        total: Duration | None = None,
    ) -> None:
        super().__init__(rise, start)
        self.final = check_factor(final, self._named("final"))
        self.total = None if total is None else as_duration(total, self._named("total"))
        if momentum is not None:
            for value in momentum:
                check_factor(value, self._named("momentum"))
        self.momentum = momentum

    def build(self, optimizer: Optimizer, horizon: Horizon) -> CurveScheduler:
        """The scheduler of this optimizer for a run so long."""
        if self.momentum is None:
            return super().build(optimizer, horizon)
        low, high = self.momentum
        level = self._between(horizon, high, low, high)
        return MomentumScheduler(optimizer, self.curve(horizon), level)

    def curve(self, horizon: Horizon) -> Curve:
        """The factor on the learning rate as a function of the steps done."""
        return self._between(horizon, self.start, 1.0, self.final)

    def _between(self, horizon: Horizon, first: float, middle: float, last: float) -> Curve:
        """From first to middle over the rise, to last over the rest."""
        horizon = limited(horizon, self.total, self._named("total"))
        end = length_of(horizon, f"{type(self).__name__} ends with the run") - 1
        peak = self.warmup.steps(horizon, self._named("rise")) - 1
        if peak > max(end, 0):
            raise ValueError(f"{self._named('rise')} lasts {peak + 1} steps, and the run has {end + 1}")

        def level(step: int) -> float:
            if step <= peak:
                return _eased(first, middle, step / peak if peak else 1.0)
            return _eased(middle, last, min((step - peak) / (end - peak), 1.0) if end > peak else 1.0)

        return level


class MomentumScheduler(CurveScheduler):
    """Sets the momentum too: of step s + 1 to momentum(s), whatever the optimizer's own.

    Raises:
        ValueError: a parameter group has neither momentum nor betas.
    """

    def __init__(self, optimizer: Optimizer, curve: Curve, momentum: Curve) -> None:
        for group in optimizer.param_groups:
            if "momentum" not in group and "betas" not in group:
                raise ValueError(
                    f"OneCycle: {type(optimizer).__name__} has neither momentum nor betas to cycle; give "
                    "momentum=None"
                )
        self._momentum = momentum
        super().__init__(optimizer, curve)

    def state_dict(self) -> dict[str, Any]:
        """The step number and the groups' base rates."""
        return {name: value for name, value in super().state_dict().items() if name != "_momentum"}

    def _update_lr(self, epoch: int | None = None) -> None:
        super()._update_lr(epoch)
        momentum = self._momentum(self.last_epoch)
        for group in self.optimizer.param_groups:
            if "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])
            else:
                group["momentum"] = momentum


def _eased(first: float, last: float, progress: float) -> float:
    return last + (first - last) / 2.0 * (1.0 + math.cos(math.pi * progress))
