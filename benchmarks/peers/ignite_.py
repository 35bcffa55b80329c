"""Ignite's supervised trainer."""

from __future__ import annotations

import torch
from ignite.contrib.handlers import ProgressBar
from ignite.engine import create_supervised_trainer
from ignite.metrics import Accuracy
from torch import nn
from torch.nn.functional import cross_entropy
from workload import LR, Batches, measure


def trainer_of(network: nn.Module, transform: object = None):  # type: ignore[no-untyped-def]
    optimizer = torch.optim.SGD(network.parameters(), lr=LR)
    more = {"output_transform": transform} if transform else {}
    return create_supervised_trainer(network, optimizer, cross_entropy, **more)


def quiet(network: nn.Module, data: Batches) -> None:
    trainer_of(network).run(data, max_epochs=1)


def as_it_comes(network: nn.Module, data: Batches) -> None:
    trainer = trainer_of(network, lambda x, y, y_pred, loss: (y_pred.detach(), y))
    Accuracy().attach(trainer, "accuracy")
    ProgressBar().attach(trainer)
    trainer.run(data, max_epochs=1)


if __name__ == "__main__":
    measure("pytorch-ignite", {"with accuracy and progress": as_it_comes, "quiet": quiet})
