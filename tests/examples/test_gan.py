"""A step with two optimizers: both parts learn, and the program can be resumed."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

import treadle
from examples import gan


def test_the_points_come_near_the_circle(tmp_path: Path) -> None:
    run = gan.main([f"--run-dir={tmp_path}/run", "--epochs=40", "--samples=2048"])
    assert run.status == "finished"
    assert run.step == 40 * 16  # one clock for both optimizers
    distances = run.history["val/distance"]
    assert distances[-1] < 0.6 * distances[0]
    assert {"train/discriminator_loss", "train/generator_loss"} <= set(run.history)


def test_it_resumes_exactly(tmp_path: Path) -> None:
    def fit(folder: Path, epochs: int, resume: str | None = None) -> treadle.Run:
        torch.manual_seed(0)
        trainer = treadle.Trainer(max_epochs=epochs, seed=3, run_dir=folder, progress=False)
        train = treadle.Loader(gan.circle(300), batch_size=64, shuffle=True)
        return trainer.fit(gan.GAN(), train, gan.circle(100, seed=1), resume=resume)

    whole = fit(tmp_path / "whole", 4)
    part = fit(tmp_path / "part", 2)
    assert part.path is not None
    shutil.copytree(part.path, tmp_path / "copy")
    assert fit(tmp_path / "copy", 4, resume="last").weights_sha256 == whole.weights_sha256


def test_prediction_gives_points() -> None:
    trainer = treadle.Trainer(run_dir=None, progress=False)
    points = trainer.predict(gan.GAN(), torch.randn(10, gan.NOISE))
    assert points.shape == (10, 2)
