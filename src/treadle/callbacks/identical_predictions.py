"""Stop when a model says the same of everything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from treadle.events import Callback
from treadle.state import State


def predicted(output: Any) -> Tensor:
    """The class of largest score where the output has scores of several classes, else the output itself.

    Args:
        output: [samples, classes, ...] for several classes, or a row of numbers for each sample.

    Raises:
        TypeError: it is no tensor.
    """
    if not isinstance(output, Tensor):
        raise TypeError(
            f"IdenticalPredictions: the output is {type(output).__name__}; give predictions=..., a function "
            "that makes a tensor of predictions from it"
        )
    several = output.ndim >= 2 and output.shape[1] > 1 and output.is_floating_point()
    return output.argmax(dim=1) if several else output


class IdenticalPredictions(Callback):
    """End the fit when all predictions of an evaluation are the same: the model has collapsed.

    Kept on the device, and read once an evaluation.

    Args:
        mode: which evaluation is looked at.
        predictions: from the model's output (`state.output`) to predictions, one row a sample; by default
            the class with the largest score, or the output itself where it has one column.
        tolerance: how far apart predictions may be and still count as the same.

    Raises:
        ValueError: `tolerance` is negative; or, after an evaluation, the task set no `state.output`.
        TypeError: the output is no tensor, and `predictions` is not given.
    """

    def __init__(
        self,
        mode: str = "val",
        predictions: Callable[[Any], Tensor] = predicted,
        tolerance: float = 0.0,
    ) -> None:
        if not callable(predictions):
            raise TypeError(f"IdenticalPredictions: predictions is {predictions!r}; give a function")
        if not tolerance >= 0:
            raise ValueError(f"IdenticalPredictions: tolerance is {tolerance!r}; it must not be negative")
        self.mode = mode
        self.tolerance = tolerance
        self._predictions = predictions
        self._low: Tensor | None = None
        self._high: Tensor | None = None
        self._samples = 0

    def on_eval_start(self, state: State) -> None:
        """Begin anew."""
        self._low = self._high = None
        self._samples = 0

    def on_after_forward(self, state: State) -> None:
        """Keep the smallest and the largest prediction."""
        if state.mode != self.mode:
            return
        rows = self._predictions(state.output).detach()
        if len(rows) == 0:
            return
        self._samples += len(rows)
        low, high = rows.amin(dim=0), rows.amax(dim=0)
        self._low = low if self._low is None else torch.minimum(self._low, low)
        self._high = high if self._high is None else torch.maximum(self._high, high)

    def on_eval_end(self, state: State) -> None:
        """Ask to stop where all are the same."""
        if state.mode != self.mode:
            return
        reduce = state.engine.strategy.reduce
        samples = reduce([float(self._samples)])[0]
        if samples == 0:
            raise ValueError(
                f"IdenticalPredictions: {type(state.task).__name__} does not call the on_after_forward hooks "
                "with its predictions in state.output while it is evaluated; a compute_loss of one's own must"
            )
        # Waits for the device, once an evaluation.
        low = None if self._low is None else self._low.double().flatten().tolist()
        high = None if self._high is None else self._high.double().flatten().tolist()
        differs = low is not None and high is not None and _apart(low, high, self.tolerance)
        if reduce([float(differs)])[0] == 0 and samples > 1 and self._ranks_agree(low, reduce):
            state.request_stop(
                f"all {samples:.0f} predictions of the evaluation {self.mode!r} are the same "
                "(IdenticalPredictions)"
            )

    def _ranks_agree(self, low: list[float] | None, reduce: Callable[[list[float]], list[float]]) -> bool:
        """Whether the ranks that saw anything saw the same: each compares its own with the mean."""
        seen = reduce([float(low is not None)])[0]
        if seen <= 1:
            return True
        width = int(reduce([float(len(low or ()))])[0] / seen)
        means = [total / seen for total in reduce(low or [0.0] * width)]
        differs = low is not None and _apart(low, means, self.tolerance + 1e-6)
        return reduce([float(differs)])[0] == 0


def _apart(one: list[float], other: list[float], tolerance: float) -> bool:
    return any(abs(left - right) > tolerance for left, right in zip(one, other, strict=True))
