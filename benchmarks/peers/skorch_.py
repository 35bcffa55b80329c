"""skorch's NeuralNetClassifier."""

from __future__ import annotations

from typing import Any

import torch
from skorch import NeuralNetClassifier
from torch import nn
from torch.utils.data import DataLoader
from workload import LR, Batches, measure


class Ready:
    """Batches made beforehand, in the place of a DataLoader."""

    def __init__(self, dataset: Any, **_: Any) -> None:
        self.dataset = dataset

    def __iter__(self) -> Any:
        return iter(self.dataset)


def train(network: nn.Module, data: Batches, verbose: int) -> None:
    net = NeuralNetClassifier(
        network,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        lr=LR,
        max_epochs=1,
        train_split=None,
        iterator_train=Ready,
        verbose=verbose,
        classes=list(range(10)),
    )
    net.initialize()
    net.module_ = network
    net.initialize_optimizer()
    net.get_dataset = lambda X, y=None: X  # type: ignore[method-assign]
    net.partial_fit(data)


if __name__ == "__main__":
    assert DataLoader
    measure(
        "skorch",
        {"as it comes": lambda n, d: train(n, d, 1), "quiet": lambda n, d: train(n, d, 0)},
    )
