"""Rows F: the digits that bare torch and four other trainers end at, with everything switched on."""

# ruff: noqa: N802 - the capital letter is the row that the test shows

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import treadle
from treadle import callbacks


class Fading(treadle.SupervisedTask):
    """Momentum 0.85 by letting gradients fade instead of clearing them."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad *= 0.85


def problem() -> tuple[nn.Module, DataLoader[Any], tuple[torch.Tensor, torch.Tensor]]:
    """The model, the training data as they are given to everybody, and the test set."""
    images, labels = load_digits(return_X_y=True)
    chosen = torch.randperm(1797, generator=torch.Generator().manual_seed(0))
    x, y = torch.from_numpy(images / 16).float()[chosen], torch.from_numpy(labels).long()[chosen]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 50), nn.ReLU(), nn.Linear(50, 10))
    generator = torch.Generator().manual_seed(5)
    train = DataLoader(TensorDataset(x[:1437], y[:1437]), 32, shuffle=True, generator=generator)
    return model, train, (x[1437:], y[1437:])


def test_F_the_hand_written_loop() -> None:
    """That the problem is the known one."""
    model, train, (x, y) = problem()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(5):
        for images, labels in train:
            optimizer.zero_grad()
            cross_entropy(model(images), labels).backward()
            optimizer.step()
    with torch.no_grad():
        assert f"{cross_entropy(model(x), y):.6f}" == "0.423861"


@pytest.mark.parametrize(
    ("kind", "loss", "accuracy"),
    [(treadle.SupervisedTask, "0.423861", "0.9278"), (Fading, "0.137268", "0.9583")],
    ids=["SGD", "momentum by zero_grad"],
)
def test_F_the_same_digits_with_everything_on(
    kind: Any, loss: str, accuracy: str, tmp_path: Path, capsys
) -> None:
    model, train, test = problem()
    task = kind(
        model, cross_entropy, torch.optim.SGD, lr=0.1, metrics={"accuracy": treadle.metrics.Accuracy()}
    )
    trainer = treadle.Trainer(
        max_epochs=5,
        device="cpu",
        run_dir=tmp_path / "run",
        log_every=1,
        checkpoint=treadle.Checkpoints(every=treadle.Every(steps=20)),
        callbacks=[
            callbacks.GradientStatistics(treadle.Every(steps=10)),
            callbacks.LearningRateMonitor(),
            callbacks.EarlyStopping("val/loss", patience=5),
        ],
        trial=True,
        eval_every=treadle.Every(steps=30, epochs=1),
    )
    run = trainer.fit(task, train, test, test=test, also={"train_full": train})
    results = trainer.evaluate(task, test)
    assert (f"{results['test/loss']:.6f}", f"{results['test/accuracy']:.4f}") == (loss, accuracy)
    assert f"{run.history['val/loss'][-1]:.6f}" == loss
    assert len(run.series("train/loss").steps) == run.step == 225
    assert len(run.checkpoints) >= 3
    assert "epoch 5/5" in capsys.readouterr().out


def test_F_the_same_digits_through_a_cut(tmp_path: Path) -> None:
    def fit(epochs: int) -> dict[str, float]:
        model, train, test = problem()
        task = treadle.SupervisedTask(model, cross_entropy, torch.optim.SGD, lr=0.1)
        trainer = treadle.Trainer(
            max_epochs=epochs, device="cpu", run_dir=tmp_path / "run", progress=False, seed=0
        )
        trainer.fit(task, train, test, resume="last")
        return trainer.evaluate(task, test)

    fit(2)
    assert f"{fit(5)['test/loss']:.6f}" == "0.423861"
