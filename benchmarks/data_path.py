"""What reading data costs, on real data: Fashion-MNIST by batches of 1024, with validation after each epoch.

The careful loop reads a shuffling DataLoader over tensors and never waits for the device needlessly.
Treadle is given the same data in each of the ways people have them, as it comes: with loss, accuracy, the
run record and checkpoints. Both run in turns A B A B within one process; ratios are taken pair by pair, of
the wall's time and of the processor's, and the loop against itself gives the noise.

    python benchmarks/data_path.py [--epochs 2] [--pairs 5] [--threads 1] [--data FOLDER]
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import treadle
from treadle.data import FashionMNIST

BATCH, EVAL_BATCH = 1024, 2048
Split = tuple[Tensor, Tensor]
Times = tuple[float, float, float]
"""Seconds of the wall, of the processor, and the last validation loss."""


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(784, 50), nn.ReLU(), nn.Linear(50, 10))


def split(folder: str | None, name: str) -> Split:
    """Pixels in 0 .. 1, flattened, and labels."""
    images, labels = FashionMNIST(folder, split=name).tensors
    return images.flatten(1).float() / 255, labels.long()


def careful_loop(train: Split, val: Split, epochs: int) -> Times:
    network = model()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    shuffled = DataLoader(TensorDataset(*train), BATCH, shuffle=True)
    in_order = DataLoader(TensorDataset(*val), EVAL_BATCH)
    began, used = time.perf_counter(), time.process_time()
    for _ in range(epochs):
        loss_sum, correct = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        for inputs, targets in shuffled:
            output = network(inputs)
            loss = cross_entropy(output, targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            loss_sum += loss.detach() * len(targets)
            correct += (output.detach().argmax(dim=1) == targets).sum()
        network.eval()
        with torch.inference_mode():
            val_loss, val_correct = torch.zeros(()), torch.zeros((), dtype=torch.int64)
            for inputs, targets in in_order:
                output = network(inputs)
                val_loss += cross_entropy(output, targets) * len(targets)
                val_correct += (output.argmax(dim=1) == targets).sum()
        network.train()
        last = (val_loss / len(val[1])).item()
    return time.perf_counter() - began, time.process_time() - used, last


class Timed(treadle.Callback):
    """From the first epoch's beginning to the last one's end, set-up left out as in the loop."""

    order = 2000.0

    def on_epoch_start(self, state: treadle.State) -> None:
        if state.progress.epoch == 0:
            self.began, self.used = time.perf_counter(), time.process_time()

    def on_fit_end(self, state: treadle.State) -> None:
        wall, processor = time.perf_counter() - self.began, time.process_time() - self.used
        self.times = (wall, processor, state.results["val/loss"])


def with_treadle(train: Any, val: Any, epochs: int) -> Times:
    metrics = {"accuracy": treadle.metrics.Accuracy()}
    task = treadle.SupervisedTask(model(), cross_entropy, torch.optim.SGD, lr=0.1, metrics=metrics)
    timed = Timed()
    with tempfile.TemporaryDirectory() as folder:
        treadle.Trainer(
            max_epochs=epochs,
            seed=0,
            device="cpu",
            run_dir=Path(folder) / "run",
            callbacks=[timed],
            progress=False,
        ).fit(task, train, val)
    return timed.times


def ways(train: Split, val: Split) -> dict[str, Callable[[], tuple[Any, Any]]]:
    """The same data in every way people have them; made anew for each run, as a program does."""
    arrays = tuple(column.numpy() for column in train), tuple(column.numpy() for column in val)
    made: dict[str, Callable[[], tuple[Any, Any]]] = {
        "tensors": lambda: (treadle.Loader(train, BATCH, shuffle=True), treadle.Loader(val, EVAL_BATCH)),
        "NumPy arrays": lambda: (
            treadle.Loader(arrays[0], BATCH, shuffle=True),
            treadle.Loader(arrays[1], EVAL_BATCH),
        ),
        "a TensorDataset": lambda: (
            treadle.Loader(TensorDataset(*train), BATCH, shuffle=True),
            treadle.Loader(TensorDataset(*val), EVAL_BATCH),
        ),
        "a DataLoader over a TensorDataset": lambda: (
            DataLoader(TensorDataset(*train), BATCH, shuffle=True),
            DataLoader(TensorDataset(*val), EVAL_BATCH),
        ),
    }
    if importlib.util.find_spec("datasets") is not None:
        from datasets import Dataset

        tables = [Dataset.from_dict({"input": inputs, "label": labels}) for inputs, labels in arrays]
        made["a Hugging Face dataset"] = lambda: (
            treadle.Loader(tables[0], BATCH, shuffle=True),
            treadle.Loader(tables[1], EVAL_BATCH),
        )
    return made


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", help="folder of the idx files; else TREADLE_FASHION_MNIST, else Debian's")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train, val = split(arguments.data, "train"), split(arguments.data, "test")
    print(f"torch {torch.__version__}, {arguments.threads} threads, {arguments.epochs} epochs a run")
    print(f"{'':38} {'ms/epoch':>9} {'loop':>7} {'wall':>6} {'processor':>10}   val/loss, loop's")

    def loop() -> Times:
        return careful_loop(train, val, arguments.epochs)

    report("the loop against itself", loop, loop, arguments)
    for name, make in ways(train, val).items():

        def candidate(make: Callable[[], tuple[Any, Any]] = make) -> Times:
            return with_treadle(*make(), arguments.epochs)

        report(name, candidate, loop, arguments)


def report(
    name: str, candidate: Callable[[], Times], loop: Callable[[], Times], arguments: argparse.Namespace
) -> None:
    candidate()
    pairs: list[tuple[Times, Times]] = []
    for _ in range(arguments.pairs):
        gc.collect()
        pairs.append((candidate(), loop()))
    wall, processor = (statistics.median(a[i] / b[i] for a, b in pairs) for i in (0, 1))
    ours, theirs = (statistics.median(pair[i][0] for pair in pairs) * 1e3 / arguments.epochs for i in (0, 1))
    losses = f"{pairs[-1][0][2]:.4f}, {pairs[-1][1][2]:.4f}"
    print(f"{name:38} {ours:9.0f} {theirs:7.0f} {wall:6.3f} {processor:10.3f}   {losses}", flush=True)


if __name__ == "__main__":
    main()
