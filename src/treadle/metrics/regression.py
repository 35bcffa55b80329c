"""Distances between numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from treadle.metrics.base import Metric


class MeanSquaredError(Metric):
    """The mean of (output - target) squared over every element.

    Output and target have one shape; (N, 1) and (N,) are taken as (N,), as they would otherwise
    broadcast to (N, N) without a word.
    """

    total: Tensor
    count: int

    def __init__(self) -> None:
        super().__init__()
        self.accumulate("total", torch.zeros((), dtype=torch.float64))
        self.accumulate("count", 0)

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add one batch.

        Raises:
            ValueError: the shapes differ.
        """
        if output.shape != target.shape:
            output, target = _aligned(output, target, type(self).__name__)
        output = output.detach()
        if output.dtype not in _WIDE:
            output = output.float()  # half precision loses the sum, unsigned integers wrap around
        self.total += self._distance(output - target)
        self.count += target.numel()

    def _distance(self, difference: Tensor) -> Tensor:
        return difference.square().sum()

    def compute(self) -> Tensor:
        """The mean over elements."""
        return self.ratio(self.total, self.count)


class MeanAbsoluteError(MeanSquaredError):
    """The mean of |output - target| over every element; shapes as in `MeanSquaredError`."""

    def _distance(self, difference: Tensor) -> Tensor:
        return difference.abs().sum()


_WIDE = (torch.float32, torch.float64)


def _aligned(output: Tensor, target: Tensor, metric: str) -> tuple[Tensor, Tensor]:
    if output.shape == (*target.shape, 1):
        return output.squeeze(-1), target
    if target.shape == (*output.shape, 1):
        return output, target.squeeze(-1)
    raise ValueError(
        f"{metric}: the output has shape {tuple(output.shape)} and the target {tuple(target.shape)}; "
        "they must be equal (a last dimension of 1 may be missing in one of them)"
    )
