"""What a step costs over the loop you would have written.

A tiny MLP on data in memory, so that the model's own time is small and the trainer's shows. Every
configuration is timed against the same careful hand-written loop (no `.item()`, gradients set to None,
losses kept on the device), in turns A B A B within one process; ratios are taken pair by pair, and the
loop against itself gives the noise.

    python benchmarks/overhead.py [--steps 2000] [--pairs 15] [--threads 1] [--device cuda]
"""

from __future__ import annotations

import argparse
import gc
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from torch import nn
from torch.nn.functional import cross_entropy

import treadle

BATCH, FEATURES, HIDDEN, CLASSES = 32, 64, 64, 10


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))


def data(steps: int, device: torch.device) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches on the device already."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(steps, BATCH, FEATURES, generator=generator)
    targets = torch.randint(CLASSES, (steps, BATCH), generator=generator)
    return list(zip(inputs.to(device), targets.to(device), strict=True))


def settled(device: torch.device) -> float:
    """The time when the device has done what it was told to."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


class Given(treadle.Source):
    """Batches made beforehand, so that only the step is timed."""

    def __init__(self, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        self.batches = batches

    def open(
        self, seed: int, rank: int = 0, world_size: int = 1, pin_memory: bool = False
    ) -> treadle.Batches:
        return GivenBatches(self.batches)


class GivenBatches(treadle.Batches):
    def __init__(self, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        self.batches, self.length, self.num_samples = batches, len(batches), len(batches) * BATCH

    def iterate(self, epoch: int, start: int = 0):  # type: ignore[no-untyped-def]
        return iter(self.batches[start:])


def careful_loop(batches: list[tuple[torch.Tensor, torch.Tensor]], accuracy: bool) -> tuple[float, float]:
    device = batches[0][0].device
    model = mlp().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    total, correct = torch.zeros((), device=device), torch.zeros((), dtype=torch.int64, device=device)
    count = 0
    began = settled(device)
    for inputs, targets in batches:
        output = model(inputs)
        loss = cross_entropy(output, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total += loss.detach() * len(targets)
        if accuracy:
            correct += (output.argmax(dim=1) == targets).sum()
        count += len(targets)
    return settled(device) - began, (total / count).item()


class Timed(treadle.Callback):
    """The time from the first step to the last, set-up and end left out as in the loop."""

    def on_epoch_start(self, state: treadle.State) -> None:
        self.began = settled(state.engine.device)

    def on_epoch_end(self, state: treadle.State) -> None:
        self.seconds = settled(state.engine.device) - self.began
        self.loss = state.results["train/loss"]


class Idle(treadle.Callback):
    """Overrides a hook and does nothing in it."""

    def __init__(self, number: int) -> None:
        self.number = number

    def on_step_end(self, state: treadle.State) -> None:
        pass


def with_treadle(
    batches: list[tuple[torch.Tensor, torch.Tensor]], accuracy: bool, extras: bool, callbacks: int
) -> tuple[float, float]:
    metrics = {"accuracy": treadle.metrics.Accuracy()} if accuracy else {}
    task = treadle.SupervisedTask(mlp(), cross_entropy, torch.optim.SGD, lr=0.01, metrics=metrics)
    timed = Timed()
    with tempfile.TemporaryDirectory() as folder:
        trainer = treadle.Trainer(
            max_epochs=1,
            seed=0,
            device=batches[0][0].device,
            run_dir=Path(folder) / "run" if extras else None,
            checkpoint=extras,
            callbacks=[timed, *(Idle(number) for number in range(callbacks)), *displays(extras)],
            progress=False,
        )
        trainer.fit(task, Given(batches))
    return timed.seconds, timed.loss


def displays(extras: bool) -> list[treadle.Callback]:
    if not extras:
        return []
    terminal = Console(file=io.StringIO(), force_terminal=True, width=100)
    return [treadle.callbacks.progress_bar(terminal)]


CONFIGURATIONS: dict[str, tuple[dict[str, object], bool]] = {
    "the loop against itself": ({}, False),
    "bare": ({"accuracy": False, "extras": False, "callbacks": 0}, False),
    "loss and accuracy": ({"accuracy": True, "extras": False, "callbacks": 0}, True),
    "50 idle callbacks": ({"accuracy": False, "extras": False, "callbacks": 50}, False),
    "as it comes: accuracy, progress, record, checkpoints": (
        {"accuracy": True, "extras": True, "callbacks": 0},
        True,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", type=torch.device, default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    batches = data(arguments.steps, torch.device(arguments.device))
    where = f"{arguments.threads} threads, {arguments.steps} steps, on {batches[0][0].device}"
    print(f"torch {torch.__version__}, {where}")
    print(f"{'':54} {'us/step':>8} {'loop':>8} {'ratio':>7} {'(quartiles)':>15}")
    for name, (options, accuracy) in CONFIGURATIONS.items():

        def candidate(options: dict[str, object] = options) -> tuple[float, float]:
            return with_treadle(batches, **options) if options else careful_loop(batches, False)  # type: ignore[arg-type]

        report(name, candidate, lambda accuracy=accuracy: careful_loop(batches, accuracy), arguments)  # type: ignore[misc]


def report(
    name: str,
    candidate: Callable[[], tuple[float, float]],
    loop: Callable[[], tuple[float, float]],
    arguments: argparse.Namespace,
) -> None:
    candidate(), loop()  # warm up both
    times: list[tuple[float, float]] = []
    for _ in range(arguments.pairs):
        gc.collect()
        (ours, our_loss), (theirs, their_loss) = candidate(), loop()
        assert abs(our_loss - their_loss) < 1e-5, (our_loss, their_loss)
        times.append((ours, theirs))
    ratios = [a / b for a, b in times]
    low, middle, high = statistics.quantiles(ratios, n=4)
    ours, theirs = (statistics.median(column) * 1e6 / arguments.steps for column in zip(*times, strict=True))
    print(f"{name:54} {ours:8.1f} {theirs:8.1f} {middle:7.3f} {f'({low:.3f}-{high:.3f})':>15}")


if __name__ == "__main__":
    main()
