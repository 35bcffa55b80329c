"""Composer's Trainer."""

from __future__ import annotations

from typing import Any

import torch
from composer import Trainer
from composer.models import ComposerModel
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from workload import LR, Batches, measure


class Model(ComposerModel):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Any) -> Any:
        return self.network(batch[0])

    def loss(self, outputs: Any, batch: Any) -> Any:
        return cross_entropy(outputs, batch[1])


def train(network: nn.Module, data: Batches, progress: bool) -> None:
    wrapped = Model(network)
    Trainer(
        model=wrapped,
        train_dataloader=DataLoader(data, batch_size=None),
        optimizers=torch.optim.SGD(wrapped.parameters(), lr=LR),
        max_duration="1ep",
        device="cpu",
        progress_bar=progress,
    ).fit()


if __name__ == "__main__":
    measure(
        "mosaicml", {"as it comes": lambda n, d: train(n, d, True), "quiet": lambda n, d: train(n, d, False)}
    )
