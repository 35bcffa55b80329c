"""What a step costs, counted: calls do not depend on how busy the machine is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

import treadle

X, Y = torch.randn(400, 4), torch.randn(400, 1)


class Counter:
    """Counts Python calls (not those into C) between two moments."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            self.calls += 1

    def __enter__(self) -> Counter:
        sys.setprofile(self)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)


def plain_loop(steps: int) -> int:
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    batches: Iterator[Any] = iter([(X[:8], Y[:8])] * steps)
    with Counter() as counter:
        for inputs, targets in batches:
            loss = mse_loss(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return counter.calls


def treadle_loop(samples: int, **options: Any) -> int:
    metrics = options.pop("metrics", None)
    task = treadle.SupervisedTask(nn.Linear(4, 1), mse_loss, torch.optim.SGD, lr=0.01, metrics=metrics)
    settings = {"max_epochs": 1, "seed": 0, "run_dir": None, "progress": False, "checkpoint": None} | options
    settings.setdefault("report", None)  # written once, at the end: it costs more for a longer curve, no step
    trainer = treadle.Trainer(log_every=10**9, **settings)
    with Counter() as counter:
        trainer.fit(task, treadle.Loader((X[:samples], Y[:samples]), 2))
    return counter.calls


def per_step(**options: Any) -> float:
    """Calls in a step: set-up and end are the same for any number of steps and cancel out."""
    few, many = treadle_loop(100, **options), treadle_loop(400, **options)
    return (many - few) / 150


def test_a_step_makes_about_as_many_python_calls_as_the_plain_loop() -> None:
    """The plain loop has its batches ready; ours are gathered, and the loss is recorded."""
    plain = (plain_loop(60) - plain_loop(10)) / 50
    assert per_step() <= 1.2 * plain


def test_extras_make_few_calls(tmp_path: Any) -> None:
    class Idle(treadle.Callback):
        def __init__(self, number: int) -> None:
            self.number = number

        def on_step_end(self, state: treadle.State) -> None:
            pass

    class Logging(treadle.Callback):
        def on_step_end(self, state: treadle.State) -> None:
            for number in range(20):
                state.log(f"value_{number}", 1.0)

    bare = per_step()
    assert per_step(callbacks=[Idle(number) for number in range(50)]) - bare <= 50.01
    assert per_step(callbacks=[Logging()]) - bare <= 24.01
    assert per_step(run_dir=tmp_path / "run", checkpoint=True) - bare <= 4.01
    assert per_step(metrics={"error": treadle.metrics.MeanSquaredError()}) - bare <= 12.01


@pytest.mark.parametrize("accumulate", [1, 4])
def test_gradients_are_cleared_without_calls_into_the_module(
    accumulate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a walk through the module on the hot path")

    class Watch(treadle.Callback):
        def on_epoch_start(self, state: treadle.State) -> None:
            monkeypatch.setattr(nn.Module, "named_parameters", refuse)
            monkeypatch.setattr(nn.Module, "__setattr__", refuse)
            monkeypatch.setattr(torch.optim.Optimizer, "zero_grad", refuse)

        def on_epoch_end(self, state: treadle.State) -> None:
            monkeypatch.undo()

    treadle_loop(100, callbacks=[Watch()], accumulate=accumulate)


def test_memory_does_not_grow_with_steps() -> None:
    """What is pending is read and let go: the log keeps nothing of old steps."""
    kept: list[int] = []
    trainer = treadle.Trainer(max_epochs=2, run_dir=None, progress=False, log_every=20)

    @trainer.on("step_end")
    def look(state: treadle.State) -> None:
        kept.append(len(state.values._pending) + len(state.values._plain))

    trainer.fit(treadle.SupervisedTask(nn.Linear(4, 1), mse_loss), treadle.Loader((X, Y), 2))
    assert max(kept) <= 20
