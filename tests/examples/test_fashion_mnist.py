"""The Fashion-MNIST example: on files made here, and on the real ones where they are."""

# ruff: noqa: N802 - the capital letter is the row of the list of results that the test shows

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks import reproduce

import treadle
from examples import fashion_mnist
from treadle.data.datasets import FASHION_MNIST_FOLDER

WITH_REAL_DATA = pytest.mark.skipif(
    not FASHION_MNIST_FOLDER.is_dir(), reason="needs Debian's dataset-fashion-mnist"
)


def write_idx(folder: Path, name: str, values: np.ndarray) -> None:
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    (folder / f"{name}.gz").write_bytes(gzip.compress(header + values.astype(np.uint8).tobytes()))


@pytest.fixture
def small_clothes(tmp_path: Path) -> Path:
    """Ten kinds of pictures that differ by the row that is bright."""
    random = np.random.default_rng(0)
    for prefix, samples in (("train", 300), ("t10k", 100)):
        labels = np.arange(samples) % 10
        images = random.integers(0, 60, (samples, 28, 28))
        images[np.arange(samples), 2 * labels] += 180
        write_idx(tmp_path, f"{prefix}-images-idx3-ubyte", images)
        write_idx(tmp_path, f"{prefix}-labels-idx1-ubyte", labels)
    return tmp_path


@pytest.mark.parametrize("momentum", [False, True])
def test_the_program_learns(
    small_clothes: Path, tmp_path: Path, momentum: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [f"--run-dir={tmp_path}/run", "--batch-size=20", "--epochs=3"]
    if momentum:  # and the folder from the environment
        monkeypatch.setenv("TREADLE_FASHION_MNIST", str(small_clothes))
        options.append("--momentum")
    else:
        options.append(f"--data={small_clothes}")
    run = fashion_mnist.main(options)
    assert run.status == "finished"
    assert run.step == 3 * 15
    losses = run.history["val/loss"]
    assert losses[-1] < losses[0]


def test_momentum_by_fading_gradients_is_momentum(small_clothes: Path) -> None:
    data = treadle.data.FashionMNIST(small_clothes), treadle.data.FashionMNIST(small_clothes, split="test")
    quiet = {"run_dir": None, "progress": False, "device": "cpu"}
    faded = fashion_mnist.train(*data, epochs=2, batch_size=20, momentum=True, **quiet)

    torch.manual_seed(0)
    task = fashion_mnist.Clothes()
    torch_optimizer = torch.optim.SGD(task.parameters(), lr=0.01, momentum=0.85)
    task.configure_optimizers = lambda: torch_optimizer  # type: ignore[method-assign]
    trainer = treadle.Trainer(max_epochs=2, seed=0, **quiet)  # type: ignore[arg-type]
    known = trainer.fit(task, treadle.Loader(data[0], 20, shuffle=True), treadle.Loader(data[1], 40))
    assert faded.history["val/loss"] == pytest.approx(known.history["val/loss"], rel=1e-5)


@WITH_REAL_DATA
def test_D_one_seed_is_within_the_spread() -> None:
    """Seed 0 does again what is recorded of it, and the record holds nntrain's numbers in its spread."""
    found = json.loads((Path(__file__).parents[2] / "docs/reproduced.json").read_text())["fashion"]
    for name, theirs in (("SGD", reproduce.SGD), ("momentum", reproduce.MOMENTUM)):
        (rows,) = reproduce.fashion_rows([0], momentum=name == "momentum")
        for epoch, (ours, original) in enumerate(zip(rows, theirs, strict=True)):
            assert ours == pytest.approx(found[name][0][epoch], rel=0.02)
            for column in (0, 1):
                spread = [seed[epoch][column] for seed in found[name]]
                assert min(spread) <= original[column] <= max(spread)
