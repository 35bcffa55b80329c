"""Train what others trained and compare the numbers: writes docs/reproduced.md.

    python benchmarks/reproduce.py [--only digits fashion curve] [--out docs/reproduced.md]

Three experiments whose results are known from other trainers: Fashion-MNIST (ten seeds, with and without
momentum), a curve (thirty seeds), and handwritten digits from given weights in a given order, where the
numbers must be the same to the last digit. What each part found is kept in a JSON file beside the page, so
that one part can be run again alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(Path(__file__).parents[1]))

import treadle
from examples import curve, fashion_mnist
from treadle.data import Digits, FashionMNIST

SGD = [(2.078, 0.378), (1.802, 0.538), (1.543, 0.601), (1.346, 0.639), (1.207, 0.651)]
MOMENTUM = [(1.105, 0.647), (0.831, 0.695), (0.736, 0.739), (0.675, 0.766), (0.634, 0.779)]
CURVE = {10: (0.218, 0.343, 1.214), 30: (0.195, 0.213, 0.238)}
DIGITS = {"SGD": (0.423861, 0.9278), "momentum": (0.137268, 0.9583)}
QUIET: dict[str, Any] = {"run_dir": None, "checkpoint": None, "progress": False, "device": "cpu"}


# -- Fashion-MNIST ------------------------------------------------------------------------------------------


def fashion_rows(seeds: Iterable[int], momentum: bool, folder: str | None = None) -> list[list[list[float]]]:
    """For each seed the validation loss and accuracy after each of five epochs: [seeds, 5, 2]."""
    data = FashionMNIST(folder), FashionMNIST(folder, split="test")
    rows = []
    for seed in seeds:
        history = fashion_mnist.train(*data, momentum=momentum, seed=seed, **QUIET).history
        rows.append([list(pair) for pair in zip(history["val/loss"], history["val/accuracy"], strict=True)])
    return rows


def fashion(folder: str | None) -> dict[str, Any]:
    return {
        "seeds": 10,
        "SGD": fashion_rows(range(10), False, folder),
        "momentum": fashion_rows(range(10), True, folder),
    }


def fashion_page(found: dict[str, Any]) -> list[str]:
    lines = [
        "## Fashion-MNIST",
        "",
        "784-50-10 with ReLU, SGD with learning rate 0.01, batches of 1024, cross-entropy, five epochs. "
        "`examples/fashion_mnist.py` is the program. The originals ran nntrain once with no seed fixed; ours "
        f"are {found['seeds']} seeds. Momentum 0.85 is made by overriding `zero_grad`, as in the original.",
    ]
    for name, theirs in (("SGD", SGD), ("momentum", MOMENTUM)):
        lines += ["", f"### {'Plain SGD' if name == 'SGD' else 'With momentum 0.85'}", ""]
        lines += [
            "| epoch | loss, original | loss: min / median / max | "
            "accuracy, original | accuracy: min / median / max |",
            "|---|---|---|---|---|",
        ]
        for epoch, (loss, accuracy) in enumerate(theirs):
            ours = [spread([row[epoch][column] for row in found[name]]) for column in (0, 1)]
            lines.append(
                f"| {epoch + 1} | {loss:.3f} | {ours[0]}{mark(ours[0], loss)} "
                f"| {accuracy:.3f} | {ours[1]}{mark(ours[1], accuracy)} |"
            )
    return lines


# -- the curve ----------------------------------------------------------------------------------------------


def curve_losses(seeds: Iterable[int]) -> dict[str, list[float]]:
    """The loss on the curve of 100 points after 10 and after 30 epochs, for each seed."""
    histories = [curve.train(30, seed, **QUIET).history["val/loss"] for seed in seeds]
    return {str(epochs): [history[epochs - 1] for history in histories] for epochs in CURVE}


def curve_page(found: dict[str, list[float]]) -> list[str]:
    lines = [
        "## The curve",
        "",
        "y = 3x + sin 6x + 1 at 1024 points, 1-16-1 with sigmoid (49 parameters), Adam with learning rate "
        "0.001, batches of 32, mean squared error on a curve of 100 points. `examples/curve.py` is the "
        f"program. The originals were 30 seeds; ours are {len(found['30'])}.",
        "",
        "| epochs | original: min / median / max | ours: min / median / max |",
        "|---|---|---|",
    ]
    for epochs, theirs in CURVE.items():
        original = " / ".join(f"{value:.3f}" for value in theirs)
        lines.append(f"| {epochs} | {original} | {spread(found[str(epochs)])} |")
    return lines


# -- digits -------------------------------------------------------------------------------------------------


class FadingTask(treadle.SupervisedTask):
    """Momentum by letting gradients fade instead of clearing them."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad *= 0.85


def digits_result(kind: type[treadle.SupervisedTask], folder: Path) -> tuple[float, float]:
    """Test loss and accuracy after five epochs, with validation, metrics, record and checkpoints on."""
    train, test = Digits("train"), Digits("val")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 50), nn.ReLU(), nn.Linear(50, 10))
    loader = DataLoader(
        TensorDataset(*train.tensors), 32, shuffle=True, generator=torch.Generator().manual_seed(5)
    )
    task = kind(
        model, cross_entropy, torch.optim.SGD, lr=0.1, metrics={"accuracy": treadle.metrics.Accuracy()}
    )
    trainer = treadle.Trainer(
        max_epochs=5,
        seed=0,
        device="cpu",
        run_dir=folder / "run",
        checkpoint=treadle.Checkpoints(every=treadle.Every(steps=20)),
        log_every=1,
        progress=False,
    )
    trainer.fit(task, loader, test)
    results = trainer.evaluate(task, test)
    return results["test/loss"], results["test/accuracy"]


def digits() -> dict[str, list[float]]:
    with tempfile.TemporaryDirectory() as folder:
        return {
            "SGD": list(digits_result(treadle.SupervisedTask, Path(folder))),
            "momentum": list(digits_result(FadingTask, Path(folder))),
        }


def digits_page(found: dict[str, list[float]]) -> list[str]:
    lines = [
        "## Digits, from the same weights in the same order",
        "",
        "scikit-learn's digits, 64-50-10 with ReLU, SGD with learning rate 0.1, batches of 32 from a "
        "DataLoader with a generator of its own, five epochs; loss and accuracy over the whole test set. "
        "Bare torch, nntrain, tinybig, Lightning and aitoolbox all end at the numbers given (tinybig's own "
        "loss, a mean of batch means, is another). Ours have validation, metrics, logging at every step and "
        "checkpoints every 20 steps switched on.",
        "",
        "| | loss, originals | loss, ours | accuracy, originals | accuracy, ours |",
        "|---|---|---|---|---|",
    ]
    for name, (loss, accuracy) in DIGITS.items():
        ours = found[name]
        label = "plain SGD" if name == "SGD" else "momentum 0.85 by overriding zero_grad"
        lines.append(f"| {label} | {loss:.6f} | {ours[0]:.6f} | {accuracy:.4f} | {ours[1]:.4f} |")
    return lines


# -- the page -----------------------------------------------------------------------------------------------


def spread(values: Sequence[float]) -> str:
    """Minimum, median and maximum with three decimals."""
    return " / ".join(f"{value:.3f}" for value in (min(values), statistics.median(values), max(values)))


def mark(ours: str, theirs: float) -> str:
    """A star where the original lies outside our spread."""
    low, _, high = map(float, ours.split(" / "))
    return "" if low <= theirs <= high else " \\*"


def page(found: dict[str, Any]) -> str:
    lines = [
        "# Numbers of others, reproduced",
        "",
        "Measured by `python benchmarks/reproduce.py` "
        f"with torch {found['torch']}, one thread, on a CPU. Where the originals fixed no seed, the spread "
        "over seeds is given; a star marks an original outside our spread.",
        "",
    ]
    for part, write in PAGES.items():
        if part in found:
            lines += [*write(found[part]), "", f"This part took {found['seconds'][part]:.0f} s.", ""]
    return "\n".join(lines)


PAGES: dict[str, Callable[[Any], list[str]]] = {
    "digits": digits_page,
    "fashion": fashion_page,
    "curve": curve_page,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=sorted(PAGES), default=list(PAGES))
    parser.add_argument("--data", help="folder of Fashion-MNIST's idx files")
    parser.add_argument("--out", type=Path, default=Path("docs/reproduced.md"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    measure: dict[str, Callable[[], Any]] = {
        "digits": digits,
        "fashion": lambda: fashion(arguments.data),
        "curve": lambda: curve_losses(range(30)),
    }
    kept = arguments.out.with_suffix(".json")
    found: dict[str, Any] = json.loads(kept.read_text()) if kept.is_file() else {"seconds": {}}
    found["torch"] = torch.__version__
    for part in arguments.only:
        began = time.perf_counter()
        found[part] = measure[part]()
        found["seconds"][part] = time.perf_counter() - began
        print(f"{part}: {found['seconds'][part]:.0f} s", flush=True)
        kept.write_text(json.dumps(found) + "\n")
        arguments.out.write_text(page(found))


if __name__ == "__main__":
    main()
