"""Accelerate around the loop."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from workload import LR, Batches, measure


def loop(network: nn.Module, data: Batches) -> None:
    accelerator = Accelerator(cpu=True)
    optimizer = torch.optim.SGD(network.parameters(), lr=LR)
    network, optimizer, loader = accelerator.prepare(network, optimizer, DataLoader(data, batch_size=None))
    for inputs, targets in loader:
        loss = cross_entropy(network(inputs), targets)
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()


if __name__ == "__main__":
    measure("accelerate", {"as it comes": loop})
