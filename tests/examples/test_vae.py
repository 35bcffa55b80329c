"""Several named losses: each logged, their weighted sum trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

import treadle
from examples import vae
from treadle.data import Digits


def test_named_losses_add_up(tmp_path: Path) -> None:
    run = vae.main([f"--run-dir={tmp_path}/run", "--epochs=3", "--kl-weight=0.5"])
    row = run.history.last()
    assert row["val/loss"] == pytest.approx(row["val/reconstruction"] + 0.5 * row["val/kl"], rel=1e-5)
    assert row["train/loss"] < run.history["train/loss"][0]


def test_it_draws_the_digits_again() -> None:
    trainer = treadle.Trainer(max_epochs=10, seed=0, run_dir=None, progress=False)
    task = vae.VAE(kl_weight=0.0)
    trainer.fit(task, treadle.Loader(Digits("train"), 64, shuffle=True))
    pixels = Digits("val").tensors[0]
    pictures = trainer.predict(task, Digits("val"))
    assert pictures.shape == pixels.shape
    error = (pictures - pixels).square().mean()
    assert error < 0.5 * pixels.var()
