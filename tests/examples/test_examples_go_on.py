"""The examples with several losses and optimizers: accumulation, bf16, and a resume from any step."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import treadle
from examples import gan, vae
from treadle.data import Digits


def problem(example: ModuleType) -> tuple[treadle.Task, Any, Any]:
    """The task on a little of its data: three windows of two batches an epoch, the last one short."""
    torch.manual_seed(0)
    if example is gan:
        return gan.GAN(), treadle.Loader(gan.circle(300), 64, shuffle=True), gan.circle(100, seed=1)
    samples = treadle.Loader(tuple(t[:300] for t in Digits("train").tensors), 64, shuffle=True)
    return vae.VAE(), samples, Digits("val")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("example", [gan, vae], ids=["gan", "vae"])
def test_a_cut_anywhere_changes_nothing(example: ModuleType, precision: str, tmp_path: Path) -> None:
    def fit(folder: Path, **options: Any) -> treadle.Run:
        task, train, val = problem(example)
        trainer = treadle.Trainer(
            max_epochs=2,
            seed=3,
            run_dir=folder,
            progress=False,
            accumulate=2,
            precision=precision,
            device="cpu",
            checkpoint=treadle.Checkpoints(every=treadle.Every(steps=1), keep_last=None),
        )
        return trainer.fit(task, train, val, **options)

    whole = fit(tmp_path / "whole")
    assert whole.step == 6
    for step in range(1, 6):  # in the middle of an epoch, at its end, and before its short last window
        checkpoint = tmp_path / "whole" / "checkpoints" / f"step-{step:08d}"
        rest = fit(tmp_path / f"from-{step}", resume=checkpoint)
        assert rest.weights_sha256 == whole.weights_sha256, step
        assert rest.history.last().keys() == whole.history.last().keys()
        name = "val/distance" if example is gan else "val/loss"
        assert rest.history[name][-1] == whole.history[name][-1]


@pytest.mark.parametrize("example", [gan, vae], ids=["gan", "vae"])
def test_the_programs_take_these_options(example: ModuleType, tmp_path: Path) -> None:
    options = ["--accumulate=4", "--precision=bf16", "--seed=1"]
    whole = example.main([f"--run-dir={tmp_path}/whole", "--epochs=2", *options])
    example.main([f"--run-dir={tmp_path}/part", "--epochs=1", *options])
    shutil.copytree(tmp_path / "part", tmp_path / "copy")
    rest = example.main([f"--run-dir={tmp_path}/copy", "--epochs=2", "--resume", *options])
    assert rest.weights_sha256 == whole.weights_sha256
    assert rest.environment["precision"] == "bf16"
    steps = {gan: 8, vae: 6}  # 4096 and 1437 samples, in windows of four batches of 128 and 64
    assert rest.step == 2 * steps[example]
