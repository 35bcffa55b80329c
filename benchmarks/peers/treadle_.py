"""Treadle, as it comes, and with everything switched off."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from workload import LR, Batches, measure

import treadle


class Ready(treadle.Source):
    """Batches made beforehand."""

    def __init__(self, batches: Batches) -> None:
        super().__init__(batches)


def train(network: nn.Module, data: Batches, run_dir: Path | None) -> None:
    accuracy = {"accuracy": treadle.metrics.Accuracy()} if run_dir else None
    task = treadle.SupervisedTask(network, cross_entropy, torch.optim.SGD, lr=LR, metrics=accuracy)
    record = run_dir is not None
    trainer = treadle.Trainer(1, seed=0, device="cpu", run_dir=run_dir, checkpoint=record, progress=record)
    trainer.fit(task, Ready(data))


def as_it_comes(network: nn.Module, data: Batches) -> None:
    with tempfile.TemporaryDirectory() as folder:
        train(network, data, Path(folder) / "run")


def quiet(network: nn.Module, data: Batches) -> None:
    train(network, data, None)


if __name__ == "__main__":
    measure("treadle", {"as it comes": as_it_comes, "quiet": quiet})
