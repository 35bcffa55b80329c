"""A trainer evaluates and predicts while it fits, and after: no callback takes notice."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.nn.functional import cross_entropy

import treadle
from treadle import callbacks as ready
from treadle.callbacks import Notification

X, Y = torch.randn(26, 4, generator=torch.Generator().manual_seed(0)), torch.arange(26) % 3


class Told(Notification):
    def send(self, subject: str, text: str, facts: dict[str, Any]) -> None:
        SENT.append(subject)


SENT: list[str] = []
EVERY = treadle.Every(steps=1)
CALLBACKS: dict[str, Callable[[], treadle.Callback]] = {
    "activations": lambda: ready.ActivationStatistics(["model.0"], EVERY),
    "augmentation": lambda: ready.DeviceAugmentation(lambda batch: (batch[0] * 1.1, batch[1])),
    "average": lambda: ready.ExponentialMovingAverage(0.9),
    "average of epochs": lambda: ready.StochasticWeightAveraging(start=0.5),
    "early stopping": lambda: ready.EarlyStopping("val/loss", patience=2, min_delta=1.0),
    "fingerprints": lambda: ready.Fingerprints(),
    "freezing": lambda: ready.Freezing(["model.0.*"], epochs=2),
    "gradients": lambda: ready.GradientStatistics(EVERY),
    "identical": lambda: ready.IdenticalPredictions(),
    "messages": lambda: ready.Messages(),
    "not finite": lambda: ready.NonFinitePolicy("skip"),
    "notification": Told,
    "progress": lambda: ready.Progress(Console(file=io.StringIO())),
    "rates": lambda: ready.LearningRateMonitor(),
    "rename": lambda: ready.MetricRename({"val/loss": "other"}),
    "summary": lambda: ready.Summary(console=Console(file=io.StringIO())),
    "threshold": lambda: ready.ThresholdStopping("val/loss", below=-1.0),
    "trial": lambda: ready.Trial(),
}


def fit(make: Callable[[], treadle.Callback], during: bool = False, between: bool = False) -> Any:
    """What two fits with the same trainer and callback leave behind."""
    SENT.clear()
    callback = make()
    trainer = treadle.Trainer(max_epochs=4, run_dir=None, progress=False, seed=0, callbacks=[callback])
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.3), nn.Linear(5, 3))
    task = treadle.SupervisedTask(model, cross_entropy, torch.optim.SGD, lr=0.1)

    def look(state: treadle.State | None = None) -> None:
        trainer.evaluate(task, (X, 2 - Y), "val")
        trainer.predict(task, X)
        trainer.results(task, (X, Y))

    if during:
        trainer.on("epoch_end", order=-5)(look)
    left = []
    for _ in range(2):
        run = trainer.fit(task, treadle.Loader((X, Y), 8, shuffle=True), (X, Y))
        clocks = ("time/", "throughput/")
        values = {n: str(run.series(n).values) for n in run.names() if not n.startswith(clocks)}
        left.append((run.reason, run.weights_sha256, values, [event.kind for event in run.events]))
        if between:
            look()
    return left, list(SENT)


@pytest.mark.parametrize("name", CALLBACKS)
def test_looks_leave_no_trace(name: str) -> None:
    known = fit(CALLBACKS[name])
    assert fit(CALLBACKS[name], between=True) == known
    assert fit(CALLBACKS[name], during=True) == known
