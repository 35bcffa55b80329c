"""Lightning's Trainer and Fabric."""

from __future__ import annotations

import logging
import tempfile
import warnings
from typing import Any

import torch
from lightning import Fabric, LightningModule, Trainer
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from workload import LR, Batches, measure

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.simplefilter("ignore")


class Module(LightningModule):
    def __init__(self, network: nn.Module, logs: bool) -> None:
        super().__init__()
        self.network = network
        self.logs = logs

    def training_step(self, batch: Any, number: int) -> Any:
        loss = cross_entropy(self.network(batch[0]), batch[1])
        if self.logs:
            self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=LR)


def ready(data: Batches) -> DataLoader[Any]:
    return DataLoader(data, batch_size=None)  # type: ignore[arg-type]  # a list would be taken for several loaders


def as_it_comes(network: nn.Module, data: Batches) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Trainer(max_epochs=1, accelerator="cpu", default_root_dir=folder).fit(
            Module(network, True), ready(data)
        )


def quiet(network: nn.Module, data: Batches) -> None:
    Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(Module(network, False), ready(data))


def fabric(network: nn.Module, data: Batches) -> None:
    lightning = Fabric(accelerator="cpu")
    network, optimizer = lightning.setup(network, torch.optim.SGD(network.parameters(), lr=LR))
    for inputs, targets in data:
        loss = cross_entropy(network(inputs), targets)
        optimizer.zero_grad()
        lightning.backward(loss)
        optimizer.step()


if __name__ == "__main__":
    measure("lightning", {"as it comes": as_it_comes, "quiet": quiet, "Fabric": fabric})
