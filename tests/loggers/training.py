"""A small run that logs everything there is to log, whole or cut and gone on with."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import treadle

STEPS = 12  # three epochs of four
MEDIA = (4, 6, 8, 12)  # where they are logged; the first two of them before the cut

Point = tuple[str, int, float]


class Media(treadle.Callback):
    """A text, a picture and a histogram at some steps."""

    def on_step_end(self, state: treadle.State) -> None:
        step = state.progress.step
        if step in MEDIA:
            state.log_text("remark", f"<b>step</b> {step}")
            state.log_picture("weights", torch.full((2, 3), step / 12))
            state.log_histogram("spread", torch.arange(10.0) + step, bins=5)


class Fails(treadle.Callback):
    """Fails after a step: what was logged since the checkpoint will come again."""

    order = 2000.0

    def on_step_end(self, state: treadle.State) -> None:
        if state.progress.step == 7:
            raise ZeroDivisionError("cut")


def train(
    folder: Path | None, loggers: Iterable[treadle.Callback], cut: bool = False, resume: Any = None
) -> treadle.Run:
    """Three epochs of four steps with random draws of all kinds; a checkpoint after every fourth step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2))
    task = treadle.SupervisedTask(
        model, cross_entropy, torch.optim.SGD, lr=0.1, metrics={"accuracy": treadle.metrics.Accuracy()}
    )
    data = (torch.arange(96.0).reshape(32, 3) / 96, torch.arange(32) % 2)
    settings: dict[str, Any] = {"run_dir": folder, "checkpoint": None, "report": None, "progress": False}
    if folder is not None:
        settings["checkpoint"] = treadle.Checkpoints(every=treadle.Every(steps=4), background=False)
    callbacks = [Media(), *loggers, *([Fails()] if cut else [])]
    trainer = treadle.Trainer(
        3,
        seed=0,
        device="cpu",
        log_every=1,
        callbacks=callbacks,
        eval_every=treadle.Every(steps=4),
        **settings,
    )
    return trainer.fit(task, treadle.Loader(data, 8, shuffle=True), data, resume=resume)


def cut_and_resumed(folder: Path, make: Any) -> treadle.Run:
    """A run that failed after its seventh step and went on from its fourth."""
    with pytest.raises(ZeroDivisionError):
        train(folder, [make()], cut=True)
    return train(folder, [make()], resume="last")


def expected(run: treadle.Run) -> dict[tuple[str, int], float]:
    """What a logger has to show of a run, from its record."""
    points = {}
    for name in run.names():
        steps, values = run.series(name)
        points.update({(name, int(step)): float(value) for step, value in zip(steps, values, strict=True)})
    for row in run.epoch_rows():
        for name, value in row.values.items():
            if name.startswith("train/") and name in run.names():
                points[f"epoch/{name}", row.step] = value
            elif not name.startswith("time/"):
                points.setdefault((name, row.step), value)
    return points


def generators() -> tuple[Any, ...]:
    """Where all generators stand."""
    numbers: Any = np.random.get_state()[1:3]
    return random.getstate(), tuple(map(str, numbers)), torch.get_rng_state().tolist()
