"""A small network on Fashion-MNIST: real data, a minute on two cores.

    python examples/fashion_mnist.py [--data FOLDER] [--momentum] [--epochs 5]

The images stay bytes in memory; a batch becomes numbers when it is used.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import treadle
from treadle.data import FashionMNIST


class Clothes(treadle.SupervisedTask):
    """784 pixels in 0 .. 1, fifty hidden units, ten kinds of clothes."""

    def __init__(self, lr: float = 0.01) -> None:
        model = nn.Sequential(nn.Linear(784, 50), nn.ReLU(), nn.Linear(50, 10))
        metrics = {"accuracy": treadle.metrics.Accuracy()}
        super().__init__(model, cross_entropy, torch.optim.SGD, lr, metrics=metrics)

    def prepare_batch(self, batch: Any) -> tuple[Any, Any]:
        images, labels = batch
        return images.flatten(1).float() / 255, labels


class ClothesWithMomentum(Clothes):
    """Momentum without an optimizer that knows it: gradients fade instead of being cleared.

    The same numbers as SGD(momentum=0.85). Gradients are not in a checkpoint, so a run that is to be
    resumed exactly asks the optimizer for its momentum instead.
    """

    momentum = 0.85

    def zero_grad(self, set_to_none: bool = True) -> None:
        with torch.no_grad():
            for parameter in self.parameters():
                if parameter.grad is not None:
                    parameter.grad *= self.momentum


def train(
    clothes: FashionMNIST,
    unseen: FashionMNIST,
    epochs: int = 5,
    batch_size: int = 1024,
    momentum: bool = False,
    seed: int = 0,
    **trainer: Any,
) -> treadle.Run:
    torch.manual_seed(seed)
    task = ClothesWithMomentum() if momentum else Clothes()
    return treadle.Trainer(max_epochs=epochs, seed=seed, **trainer).fit(
        task,
        treadle.Loader(clothes, batch_size, shuffle=True),
        treadle.Loader(unseen, 2 * batch_size),
    )


def main(arguments: Sequence[str] | None = None) -> treadle.Run:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="folder of the idx files; else TREADLE_FASHION_MNIST, else Debian's")
    parser.add_argument("--momentum", action="store_true")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run-dir", default="runs/fashion-mnist")
    given = parser.parse_args(arguments)
    run = train(
        FashionMNIST(given.data),
        FashionMNIST(given.data, split="test"),
        given.epochs,
        given.batch_size,
        given.momentum,
        given.seed,
        run_dir=given.run_dir,
    )
    print(run.history)
    return run


if __name__ == "__main__":
    main()
