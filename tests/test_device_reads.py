"""Training on a device whose numbers cannot be read: torch's "meta" refuses every attempt to look at one.

It stands in for an accelerator that would have to be waited for; whoever reads fails right there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import treadle
from treadle import callbacks, log, metrics, pending, recording

X, Y = torch.randn(48, 4), torch.arange(48) % 3


@pytest.fixture
def boundaries(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many numbers were read at each log boundary and each end of an epoch; they all come out as 1."""
    counts: list[int] = []

    def read(values: Iterable[Tensor | float]) -> list[float]:
        given = list(values)
        counts.append(sum(isinstance(value, Tensor) for value in given))
        return [1.0 if isinstance(value, Tensor) else float(value) for value in given]

    for module in (log, pending):
        monkeypatch.setattr(module, "read_scalars", read)
    monkeypatch.setattr(recording, "weights_sha256", lambda weights: "unread")  # at the end of a run
    return counts


def task(**options: Any) -> treadle.SupervisedTask:
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 3))
    counted = {"accuracy": metrics.Accuracy(), "f1": metrics.F1(num_classes=3)}
    return treadle.SupervisedTask(model, cross_entropy, metrics=counted, **options)


def trainer(**options: Any) -> treadle.Trainer:
    settings = {"max_epochs": 2, "run_dir": None, "progress": False, "checkpoint": None, "device": "meta"}
    return treadle.Trainer(**settings | options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"clip_norm": 1.0},
        {"clip_value": 0.1, "clip_norm": 1.0},
        {"accumulate": 3},
        {"microbatch_size": 2},
        {"progress": True},
        {"callbacks": [callbacks.ExponentialMovingAverage(), callbacks.LearningRateMonitor()]},
        {"callbacks": [callbacks.GradientStatistics(treadle.Every(steps=1)), callbacks.NonFinitePolicy()]},
        {"callbacks": [callbacks.StepTimes(), callbacks.Throughput()]},
    ],
    ids=["plain", "clip", "clip twice", "accumulate", "split", "progress", "average", "watch", "time"],
)
@pytest.mark.parametrize(
    "kind",
    [
        {"optimizer": torch.optim.AdamW, "lr": 0.1},
        {"optimizer": torch.optim.SGD, "lr": 0.1, "scheduler": treadle.schedules.CosineDecay()},
    ],
    ids=["adamw", "sgd with a schedule"],
)
def test_a_run_reads_at_log_boundaries_alone(
    options: dict[str, Any], kind: dict[str, Any], boundaries: list[int]
) -> None:
    trainer(log_every=4, **options).fit(task(**kind), treadle.Loader((X, Y), 8, shuffle=True), val=(X, Y))
    assert 0 < len(boundaries) < 40
    assert sum(boundaries) > 0


def test_a_read_in_a_step_would_fail(boundaries: list[int]) -> None:
    training = trainer()

    @training.on("after_loss")
    def look(state: treadle.State) -> None:
        float(state.loss)  # type: ignore[arg-type]

    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        training.fit(task(lr=0.1), treadle.Loader((X, Y), 8))
