"""Runs of seven steps, of which any setting can be another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import treadle

SAMPLES = 40  # at batch 8: five steps an epoch
generator = torch.Generator().manual_seed(2)
X, Y = torch.randn(SAMPLES, 3, generator=generator), torch.arange(SAMPLES) % 2


def fit(folder: Path | None, **given: Any) -> treadle.Run:
    """Seven steps, the second epoch's second among them the last, with a checkpoint after each."""
    torch.manual_seed(1)
    task = given.pop("task", None) or treadle.SupervisedTask(
        nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)),
        given.pop("loss", cross_entropy),
        given.pop("optimizer", torch.optim.SGD),
        lr=given.pop("lr", 0.1),
        scheduler=given.pop("scheduler", None),
        metrics={"accuracy": treadle.metrics.Accuracy()},
    )
    count = given.pop("samples", SAMPLES)
    train = given.pop("train", None) or treadle.Loader(
        (X[:count], Y[:count]), given.pop("batch_size", 8), shuffle=True
    )
    val, resume, config = given.pop("val", (X, Y)), given.pop("resume", None), given.pop("config", None)
    defaults = {
        "max_steps": 7,
        "seed": 0,
        "progress": False,
        "checkpoint": treadle.Checkpoints(every=treadle.Every(steps=1), keep_last=None),
    }
    trainer = treadle.Trainer(run_dir=folder, **{**defaults, **given})
    return trainer.fit(task, train, val, resume=resume, config=config)
