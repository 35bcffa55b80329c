"""Fit a curve: a dataset with numbered samples, a stream of the same curve, and the metrics as CSV.

python examples/curve.py [--stream] [--epochs 30]
"""

from __future__ import annotations

import argparse
import importlib.util
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.data import Dataset, IterableDataset

import treadle
from treadle.runs import export_csv, read_csv

Point = tuple[Tensor, Tensor]


def curve(x: Tensor) -> Tensor:
    return 3 * x + torch.sin(6 * x) + 1


class MyCurve(Dataset[Point]):
    """`n` points of the curve between 0 and 1, both included: x and y of shape [1]."""

    def __init__(self, n: int) -> None:
        self.x = torch.linspace(0, 1, n).unsqueeze(1)
        self.y = curve(self.x)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Point:
        return self.x[index], self.y[index]


class StreamedCurve(IterableDataset[Point]):
    """Points from `start` up to but not including `end`, `delta` apart, one after another.

    Point number i lies at start + i * delta. Adding delta again and again would drift, and could give a
    point too many.
    """

    def __init__(self, start: float, end: float, delta: float) -> None:
        self.start, self.delta = start, delta
        steps = (end - start) / delta
        self.length = round(steps) if math.isclose(steps, round(steps)) else math.ceil(steps)

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Point]:
        for number in range(self.length):
            x = torch.tensor([self.start + number * self.delta], dtype=torch.float32)
            yield x, curve(x)


class CurveTask(treadle.Task):
    """Model, loss and optimizer written out: all that `SupervisedTask` would do here."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(1, 16), nn.Sigmoid(), nn.Linear(16, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)  # type: ignore[no-any-return]

    def compute_loss(self, batch: Point, state: treadle.State) -> Tensor:
        x, y = batch
        return mse_loss(self(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def train(epochs: int = 30, seed: int = 0, stream: bool = False, **trainer: Any) -> treadle.Run:
    torch.manual_seed(seed)
    points = (
        treadle.Loader(StreamedCurve(0, 1, 1 / 1024), batch_size=32)
        if stream
        else treadle.Loader(MyCurve(1024), batch_size=32, shuffle=True)
    )
    return treadle.Trainer(max_epochs=epochs, seed=seed, **trainer).fit(CurveTask(), points, MyCurve(100))


def plot(table: dict[str, list[float]], path: Path) -> None:
    """Draw the losses of each epoch, where matplotlib is installed."""
    if importlib.util.find_spec("matplotlib") is None:
        print("matplotlib is not installed: no plot")
        return
    from matplotlib.figure import Figure  # type: ignore[import-not-found, unused-ignore]

    figure = Figure()
    axes = figure.subplots()
    for name in ("train/loss_epoch", "val/loss"):
        rows = [row for row in zip(table["epoch"], table[name], strict=True) if not math.isnan(row[1])]
        axes.plot(*zip(*rows, strict=True), label=name)
    axes.set(xlabel="epoch", ylabel="loss", yscale="log")
    axes.legend()
    figure.savefig(path)
    print(f"plot in {path}")


def main(arguments: Sequence[str] | None = None) -> treadle.Run:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stream", action="store_true", help="train on the stream, in its own order")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run-dir", default="runs/curve")
    parser.add_argument("--csv", default="runs/csv", help="folder of the CSV files")
    given = parser.parse_args(arguments)
    run = train(given.epochs, given.seed, given.stream, run_dir=given.run_dir)
    path = export_csv(run, given.csv, "curve")
    table = read_csv(path)
    print(f"{len(table['step'])} rows in {path}: {', '.join(table)}")
    plot(table, path.with_name("loss.png"))
    return run


if __name__ == "__main__":
    main()
