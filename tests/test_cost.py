"""What a step costs, counted: calls do not depend on how busy the machine is."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
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
        gc.collect()
        gc.disable()  # it would call what other tests left to be called
        sys.setprofile(self)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        gc.enable()


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
    assert per_step(callbacks=[treadle.callbacks.StepTimes()]) - bare <= 6.1
    assert per_step(callbacks=[Logging()]) - bare <= 24.01
    assert per_step(run_dir=tmp_path / "run", checkpoint=True) - bare <= 4.01
    assert per_step(metrics={"error": treadle.metrics.MeanSquaredError()}) - bare <= 12.01


def looked(what: str, batches: int, **options: Any) -> int:
    task = treadle.SupervisedTask(nn.Linear(4, 1), mse_loss, metrics=options.pop("metrics", None))
    trainer = treadle.Trainer(run_dir=None, progress=False, device="cpu")
    data = treadle.Loader((X[: 2 * batches], Y[: 2 * batches]), 2)
    with Counter() as counter:
        getattr(trainer, what)(task, data)
    return counter.calls


def plain_look(batches: int) -> int:
    model = nn.Linear(4, 1).eval()
    with Counter() as counter, torch.inference_mode():
        for inputs, targets in [(X[:8], Y[:8])] * batches:
            mse_loss(model(inputs), targets)
    return counter.calls


def test_a_batch_that_is_looked_at_makes_few_python_calls() -> None:
    """The bare loop has its batches ready; ours are copies, and the loss or output is kept."""
    bare = (plain_look(60) - plain_look(10)) / 50

    def per_batch(what: str, **options: Any) -> float:
        return (looked(what, 200, **options) - looked(what, 50, **options)) / 150

    assert per_batch("evaluate") <= bare + 11.1
    assert per_batch("predict") <= bare + 8.1
    assert per_batch("evaluate", metrics={"error": treadle.metrics.MeanSquaredError()}) <= bare + 13.1


def allocations(function: Callable[[], object]) -> int:
    """How often torch took memory for a tensor in here."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as seen:
        function()
    results = seen.profiler.kineto_results  # type: ignore[union-attr]
    return sum(event.name() == "[memory]" and event.nbytes() > 0 for event in results.events())


def test_a_step_allocates_as_many_tensors_as_the_plain_loop() -> None:
    """And those of its batch, which the plain loop has ready."""
    plain = (allocations(lambda: plain_loop(60)) - allocations(lambda: plain_loop(10))) / 50
    ours = (allocations(lambda: treadle_loop(400)) - allocations(lambda: treadle_loop(100))) / 150
    assert ours <= plain + 1.01

    def per_batch(what: str) -> float:
        many, few = (allocations(lambda n=n: looked(what, n)) for n in (200, 50))  # type: ignore[misc]
        return (many - few) / 150

    bare = (allocations(lambda: plain_look(60)) - allocations(lambda: plain_look(10))) / 50
    assert per_batch("evaluate") <= bare + 2.01
    assert per_batch("predict") <= bare + 0.01


@pytest.mark.usefixtures("values_stay_on_the_device")
@pytest.mark.parametrize("what", ["evaluate", "predict"])
def test_nothing_is_read_from_the_device_for_a_batch_that_is_looked_at(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted on the CPU: as many item(), tolist() and the like for many batches as for few."""
    reads: list[str] = []

    def counting(name: str) -> Any:
        original = getattr(torch.Tensor, name)

        def method(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            reads.append(name)
            return original(self, *args, **kwargs)

        return method

    for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__"):
        monkeypatch.setattr(torch.Tensor, name, counting(name))

    def reads_of(batches: int) -> int:
        reads.clear()
        looked(what, batches, metrics={"error": treadle.metrics.MeanSquaredError()})
        return len(reads)

    assert reads_of(10) == reads_of(100) <= 4


def test_a_step_leaves_no_objects_behind() -> None:
    """Python's memory is as full after many steps as after few, where what was logged has been read."""
    blocks: list[int] = []
    trainer = treadle.Trainer(max_epochs=3, run_dir=None, progress=False, log_every=20, checkpoint=None)

    @trainer.on("step_end", treadle.Every(steps=20))
    def look(state: treadle.State) -> None:
        gc.collect()
        blocks.append(sys.getallocatedblocks())

    trainer.fit(treadle.SupervisedTask(nn.Linear(4, 1), mse_loss), treadle.Loader((X, Y), 2))
    assert len(blocks) == 30
    assert blocks[-1] - blocks[14] <= 2 * 300  # two numbers a point that the record has in no chunk yet


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
        kept.append(sum(map(len, state.values.pending.columns.values())) + len(state.values._plain))

    trainer.fit(treadle.SupervisedTask(nn.Linear(4, 1), mse_loss), treadle.Loader((X, Y), 2))
    assert max(kept) <= 20
