"""torchtnt's AutoUnit."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torchtnt.framework.auto_unit import AutoUnit
from torchtnt.framework.train import train
from workload import LR, Batches, measure


class Unit(AutoUnit[Any]):
    def compute_loss(self, state: Any, data: Any) -> Any:
        output = self.module(data[0])
        return cross_entropy(output, data[1]), output

    def configure_optimizers_and_lr_scheduler(self, module: nn.Module) -> Any:
        return torch.optim.SGD(module.parameters(), lr=LR), None


def quiet(network: nn.Module, data: Batches) -> None:
    train(Unit(module=network, device=torch.device("cpu")), data, max_epochs=1)


if __name__ == "__main__":
    measure("torchtnt", {"as it comes": quiet})
