"""Any function of the step number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch.optim import Optimizer

from treadle.schedules.constant import Constant
from treadle.schedules.curve import Curve, CurveScheduler
from treadle.schedules.durations import Duration, Horizon


class Lambda(Constant):
    """The optimizer's rate times function(steps done).

    Args:
        function: of the number of steps done, a float; one for all parameter groups or one for each.
        warmup, start: see `Constant`.

    Raises:
        TypeError: something given is no function.
    """

    def __init__(self, function: Curve | Sequence[Curve], warmup: Duration = 0, start: float = 0.0) -> None:
        super().__init__(warmup, start)
        functions: list[Any] = list(function) if isinstance(function, (list, tuple)) else [function]
        if not functions or not all(callable(one) for one in functions):
            raise TypeError(
                f"{self._named('function')} is {function!r}; give a function of the step number, or "
                "a list with one for each parameter group"
            )
        self.functions = functions

    def build(self, optimizer: Optimizer, horizon: Horizon) -> CurveScheduler:
        """The scheduler of this optimizer, with a curve for each function."""
        warm = self.curve(horizon)
        curves = [_product(warm, function) for function in self.functions]
        return CurveScheduler(optimizer, curves[0] if len(curves) == 1 else curves)


def _product(one: Curve, other: Callable[[int], float]) -> Curve:
    return lambda step: one(step) * other(step)
