"""Every generator that training may draw from goes on where it stood; and what is saved comes in order."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import treadle
from treadle.checkpoint import commit
from treadle.runs import Run

DRAWS = {"python": random.random, "numpy": np.random.rand, "torch": lambda: float(torch.rand(()))}


class Draw(treadle.Callback):
    """Draws a number after each step, as a regulariser or an augmentation on the device would."""

    def __init__(self, generator: str) -> None:
        self.draw = DRAWS[generator]

    def on_step_end(self, state: treadle.State) -> None:
        state.record("draw", float(self.draw()))


def fit(folder: Path, callbacks: Any = (), **options: Any) -> Run:
    torch.manual_seed(2)
    task = treadle.SupervisedTask(nn.Linear(5, 3), cross_entropy, torch.optim.SGD, lr=0.05)
    checkpoint = treadle.Checkpoints(every=treadle.Every(steps=1), keep_last=None)
    trainer = treadle.Trainer(
        max_epochs=2, seed=5, run_dir=folder, callbacks=callbacks, checkpoint=checkpoint, progress=False
    )
    data = torch.randn(12, 5, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3
    return trainer.fit(task, treadle.Loader(data, 4, shuffle=True), data, **options)


@pytest.mark.parametrize("generator", DRAWS)
def test_each_generator_goes_on_where_it_stood(tmp_path: Path, generator: str) -> None:
    whole = fit(tmp_path / "whole", [Draw(generator)])
    assert whole.path is not None
    draws = whole.series("draw").values.tolist()
    assert len(set(draws)) == 6
    for cut in (1, 3, 4):
        copy = Path(shutil.copytree(whole.path, tmp_path / f"cut-{cut}"))
        for later in range(cut + 1, 7):
            shutil.rmtree(copy / "checkpoints" / f"step-{later:08d}")
        run = fit(copy, [Draw(generator)], resume=copy)
        assert run.series("draw").values.tolist() == draws


def test_the_record_is_durable_before_the_checkpoint_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut could leave a checkpoint whose past is not recorded."""
    happened: list[tuple[str, int]] = []
    flush, write = Run.flush, commit._commit

    def flushed(run: Run) -> None:
        flush(run)
        points = run.series("train/loss").steps.tolist() if "train/loss" in run.names() else []
        happened.append(("flushed", max(points, default=0)))

    def committed(temporary: Path, final: Path, step: int) -> None:
        happened.append(("committed", step))
        write(temporary, final, step)

    monkeypatch.setattr(Run, "flush", flushed)
    monkeypatch.setattr(commit, "_commit", committed)
    fit(tmp_path / "run")
    commits = [step for what, step in happened if what == "committed"]
    assert commits == [1, 2, 3, 3, 4, 5, 6, 6]
    for position, (what, step) in enumerate(happened):
        if what == "committed":
            assert ("flushed", step) in happened[:position]


class Noisy(nn.Linear):
    """A model that samples whenever it runs, in evaluation too."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        noise = torch.rand(3) + float(np.random.rand()) + random.random()
        output: torch.Tensor = super().forward(inputs) + noise
        return output


def test_a_model_that_draws_while_it_is_evaluated_trains_the_same() -> None:
    def train(**options: Any) -> Run:
        torch.manual_seed(2)
        task = treadle.SupervisedTask(Noisy(5, 3), cross_entropy, torch.optim.SGD, lr=0.05)
        trainer = treadle.Trainer(max_epochs=2, seed=5, run_dir=None, progress=False, **options)
        data = torch.randn(12, 5, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3
        return trainer.fit(task, treadle.Loader(data, 4), data)

    watched, bare = train(eval_every=treadle.Every(steps=1)), train(eval_every=None)
    assert watched.weights_sha256 == bare.weights_sha256
