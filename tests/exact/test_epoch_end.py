"""What is recorded at an epoch's end belongs to its last step, which may have a checkpoint already."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import treadle


class Marks(treadle.Callback):
    """Records two points of one name at each epoch's end."""

    def on_epoch_end(self, state: treadle.State) -> None:
        for part in (0.25, 0.5):
            state.record("epoch/mark", state.progress.epoch + part)
            state.flush()


class Dies(treadle.Callback):
    """Dies after the record has the epoch's end, and before the checkpoint of it."""

    order = 999.0

    def on_epoch_end(self, state: treadle.State) -> None:
        state.flush()
        state.run.flush()
        raise RuntimeError("killed")


def fit(folder: Path, *callbacks: treadle.Callback) -> treadle.Run:
    torch.manual_seed(2)
    task = treadle.SupervisedTask(nn.Linear(5, 3), cross_entropy, torch.optim.SGD, lr=0.05)
    trainer = treadle.Trainer(
        max_epochs=4,
        seed=5,
        run_dir=folder,
        callbacks=[Marks(), *callbacks],
        checkpoint=treadle.Checkpoints(every=treadle.Every(steps=1, epochs=1)),
        progress=False,
    )
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(20, 5, generator=generator), torch.arange(20) % 3
    return trainer.fit(task, treadle.Loader(data, 4, shuffle=True), resume="last")


def test_a_point_of_the_epochs_end_is_there_once_and_at_its_step(tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole")
    assert whole.series("epoch/mark").steps.tolist() == [5, 5, 10, 10, 15, 15, 20, 20]
    for _ in range(3):
        with pytest.raises(RuntimeError, match="killed"):
            fit(tmp_path / "killed", Dies())
    run = fit(tmp_path / "killed")
    assert run.weights_sha256 == whole.weights_sha256
    assert run.names() == whole.names()
    for name in whole.names():
        assert run.series(name).steps.tolist() == whole.series(name).steps.tolist()
        assert run.series(name).values.tolist() == whole.series(name).values.tolist()
