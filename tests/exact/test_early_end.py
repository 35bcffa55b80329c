"""A run that ends in the middle of an epoch, killed right after the checkpoint of its last step."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import treadle


class Dies(treadle.Callback):
    """Dies when the checkpoint of a step is there, once."""

    order = 1001.0

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, state: treadle.State) -> None:
        if state.progress.step == self.step:
            raise RuntimeError("killed")


class Signals(treadle.Callback):
    """Gets a signal while the values of an epoch's end are read."""

    def on_log(self, state: treadle.State) -> None:
        if state.progress.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)


def fit(folder: Path, *callbacks: treadle.Callback, **options: Any) -> treadle.Run:
    torch.manual_seed(2)
    task = treadle.SupervisedTask(
        nn.Linear(5, 3),
        cross_entropy,
        torch.optim.SGD,
        lr=0.05,
        metrics={"accuracy": treadle.metrics.Accuracy()},
    )
    trainer = treadle.Trainer(
        seed=5,
        run_dir=folder,
        callbacks=callbacks,
        checkpoint=treadle.Checkpoints(every=options.pop("save_every", treadle.Every(steps=1))),
        progress=False,
        **options,
    )
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(20, 5, generator=generator), torch.arange(20) % 3
    return trainer.fit(task, treadle.Loader(data, 4, shuffle=True), data, resume="last")


def history_of(run: treadle.Run) -> dict[str, list[float]]:
    return {name: list(run.history[name]) for name in run.history if not name.startswith("time/")}


def test_the_last_epochs_row_is_there_after_a_kill_at_max_steps(tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole", max_steps=7)
    assert list(whole.history["step"]) == [5, 7]
    with pytest.raises(RuntimeError, match="killed"):
        fit(tmp_path / "killed", Dies(7), max_steps=7)
    run = fit(tmp_path / "killed", max_steps=7)
    assert run.weights_sha256 == whole.weights_sha256
    assert history_of(run) == history_of(whole)


def test_the_last_epochs_row_is_there_after_a_kill_at_an_early_stop(tmp_path: Path) -> None:
    def stopping() -> treadle.Callback:
        return treadle.callbacks.EarlyStopping("val/loss", patience=2, min_delta=10.0)

    options: dict[str, Any] = {"max_epochs": 9, "eval_every": treadle.Every(steps=3)}
    whole = fit(tmp_path / "whole", stopping(), **options)
    assert whole.step == 9
    with pytest.raises(RuntimeError, match="killed"):
        fit(tmp_path / "killed", stopping(), Dies(9), **options)
    run = fit(tmp_path / "killed", stopping(), **options)
    assert run.weights_sha256 == whole.weights_sha256
    assert history_of(run) == history_of(whole)


def test_a_signal_at_an_epochs_end_adds_no_evaluation(tmp_path: Path) -> None:
    epochs = {"eval_every": treadle.Every(epochs=2), "save_every": treadle.Every(epochs=1)}
    options: dict[str, Any] = {"max_epochs": 4, **epochs}
    whole = fit(tmp_path / "whole", **options)
    with pytest.raises(SystemExit):
        fit(tmp_path / "cut", Signals(), **options)
    run = fit(tmp_path / "cut", **options)
    assert run.weights_sha256 == whole.weights_sha256
    assert str(history_of(run)) == str(history_of(whole))  # NaN where there is no evaluation
