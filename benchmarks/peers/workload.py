"""The work that every trainer does, and how it is timed. Needs nothing but torch."""

from __future__ import annotations

import gc
import importlib.metadata
import json
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

BATCH, FEATURES, CLASSES, LR = 32, 64, 10, 0.01
FEW, MANY = 100, 900
Batches = list[tuple[Tensor, Tensor]]
Train = Callable[[nn.Module, Batches], object]
"""Trains the model in place, by SGD, on each batch once, in order."""


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(FEATURES, 64), nn.ReLU(), nn.Linear(64, CLASSES))


def batches(steps: int) -> Batches:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(steps, BATCH, FEATURES, generator=generator)
    targets = torch.randint(CLASSES, (steps, BATCH), generator=generator)
    return list(zip(inputs, targets, strict=True))


def careful_loop(network: nn.Module, data: Batches) -> None:
    """The loop you would have written with care: nothing waits, gradients become None."""
    optimizer = torch.optim.SGD(network.parameters(), lr=LR)
    total = torch.zeros(())
    for inputs, targets in data:
        loss = cross_entropy(network(inputs), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total += loss.detach()
    assert total.isfinite()


def measure(package: str, configurations: dict[str, Train], pairs: int = 7) -> None:
    """Time each configuration in turns with the loop, and print a line of JSON for each.

    A step costs the difference between a long and a short training, so set-up counts for neither.
    """
    torch.set_num_threads(1)
    few, many = batches(FEW), batches(MANY)

    def step(train: Train) -> tuple[float, float, float]:
        walls, processors = [], []
        for data in (few, many):
            network = model()
            gc.collect()
            wall, processor = time.perf_counter(), time.process_time()
            train(network, data)
            walls.append(time.perf_counter() - wall)
            processors.append(time.process_time() - processor)
        with torch.no_grad():
            loss = torch.stack([cross_entropy(network(x), y) for x, y in many[:50]]).mean().item()
        steps = MANY - FEW
        return (walls[1] - walls[0]) / steps, (processors[1] - processors[0]) / steps, loss

    for name, train in configurations.items():
        step(train), step(careful_loop)
        seen = [(step(train), step(careful_loop)) for _ in range(pairs)]
        off = max(abs(ours[2] - theirs[2]) for ours, theirs in seen)
        print(
            json.dumps(
                {
                    "package": package,
                    "version": importlib.metadata.version(package),
                    "torch": torch.__version__,
                    "configuration": name,
                    "wall": [ours[0] / theirs[0] for ours, theirs in seen],
                    "processor": [ours[1] / theirs[1] for ours, theirs in seen],
                    "microseconds": statistics.median(ours[1] for ours, _ in seen) * 1e6,
                    "loss_difference": off,
                }
            ),
            file=sys.__stdout__,
            flush=True,
        )
