"""A task whose samples have weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from treadle.supervised_task import SupervisedTask


class WeightedTask(SupervisedTask):
    """A batch is (x, y, weight); its loss is the weighted mean, and its items are the sum of its weights."""

    def prepare_batch(self, batch: Any) -> tuple[Any, Any]:
        """(inputs, targets)."""
        return batch[0], batch[1] if len(batch) > 1 else None

    def num_items(self, batch: Any) -> float:
        """The sum of the weights; they are counted before a batch goes to the device."""
        return float(batch[2].sum()) if len(batch) > 2 else float(len(batch[0]))

    def compute_loss(self, batch: Any, state: Any) -> Tensor:
        """The mean of the loss without reduction, weighted by sample."""
        inputs, targets = self.prepare_batch(batch)
        state.output = self.forward(inputs)
        losses: Tensor = self.loss(state.output, targets, reduction="none")
        losses = losses.reshape(len(losses), -1).mean(1)
        weights: Tensor = batch[2].to(losses.dtype)
        total = (losses * weights).sum()
        return total / weights.sum().clamp(min=torch.finfo(losses.dtype).tiny)
