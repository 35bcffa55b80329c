"""Callbacks that add to the record: learning rates, speed, inserted and renamed values, functions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

import treadle
from treadle.callbacks import (
    FunctionEvery,
    HistoryInsertion,
    LearningRateMonitor,
    MetricRename,
    Throughput,
)
from treadle.callbacks.throughput import memory

DECAY = treadle.Schedule(partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5), every="step")


def linear_task(optimizer: Any = torch.optim.SGD, **options: Any) -> treadle.SupervisedTask:
    torch.manual_seed(1)
    return treadle.SupervisedTask(nn.Linear(5, 3), nn.CrossEntropyLoss(), optimizer, lr=0.1, **options)


def test_learning_rates_of_every_step(fit: Callable[..., Any], resumes_exactly: Callable[..., Any]) -> None:
    make = lambda: [LearningRateMonitor()]  # noqa: E731
    run, _ = resumes_exactly(make, task=lambda: linear_task(scheduler=DECAY))
    series = run.series("learning_rate")
    assert series.steps.tolist() == list(range(1, 13))
    assert series.values.tolist() == pytest.approx([0.1 * 0.5**step for step in range(12)])
    often, _ = fit(make(), task=linear_task(scheduler=DECAY), log_every=1)
    assert often.series("learning_rate").values.tolist() == series.values.tolist()


def test_learning_rates_reach_loggers(fit: Callable[..., Any]) -> None:
    seen: list[Any] = []

    class Logger(treadle.Callback):
        def on_log(self, state: treadle.State) -> None:
            seen.extend(point for point in state.points if point[0] == "learning_rate")
            assert state.latest["learning_rate"] == 0.1

    fit([Logger(), LearningRateMonitor()], task=linear_task(), log_every=3)
    assert seen == [("learning_rate", step, 0.1) for step in range(1, 13)]


def test_learning_rates_of_several_optimizers_and_groups(fit: Callable[..., Any]) -> None:
    class Two(treadle.SupervisedTask):
        def configure_optimizers(self) -> Any:
            weight, bias = self.model.parameters()
            groups = [{"params": [weight], "lr": torch.tensor(0.5)}, {"params": [bias], "lr": 0.25}]
            return {"outer": torch.optim.Adam(groups), "inner": torch.optim.SGD([bias], 0.125)}

    run, _ = fit([LearningRateMonitor()], task=Two(nn.Linear(5, 3), nn.CrossEntropyLoss()))
    rates = {name: run.series(name).values.tolist()[0] for name in run.names() if "rate" in name}
    assert rates == {
        "learning_rate/outer/0": 0.5,
        "learning_rate/outer/1": 0.25,
        "learning_rate/inner": 0.125,
    }


def test_a_task_that_logs_nothing_still_has_learning_rates(
    fit: Callable[..., Any], resumes_exactly: Callable[..., Any]
) -> None:
    class Silent(treadle.SupervisedTask):
        def combine(self, loss: Any, state: treadle.State) -> Any:
            return loss

    make = lambda: Silent(nn.Linear(5, 3), nn.CrossEntropyLoss(), torch.optim.SGD, lr=0.1)  # noqa: E731

    def made() -> Any:
        torch.manual_seed(1)
        return make()

    run, _ = fit([LearningRateMonitor()], "whole", task=made())
    assert run.series("learning_rate").steps.tolist() == list(range(1, 13))
    rest, _ = fit([LearningRateMonitor()], "cut", task=made(), resume=run.path / "checkpoints/step-00000006")
    # Steps 5 and 6 were pending in the checkpoint, and are recorded by the run that goes on from it.
    assert rest.series("learning_rate").steps.tolist() == list(range(5, 13))


def test_throughput_is_recorded_without_evaluations(fit: Callable[..., Any]) -> None:
    class Clock:
        now = 0.0

        def __call__(self) -> float:
            return self.now

    clock = Clock()

    class Work(treadle.Callback):
        def on_batch_start(self, state: treadle.State) -> None:
            clock.now += 2.0

        def on_eval_batch_start(self, state: treadle.State) -> None:
            clock.now += 1000.0

    run, _ = fit([Throughput(clock), Work()], log_every=2, eval_every=treadle.Every(steps=3))
    assert run.series("time/step_seconds").steps.tolist() == [2, 4, 6, 8, 10, 12]
    assert set(run.series("time/step_seconds").values.tolist()) == {2.0}
    assert run.series("time/samples_per_second").values.tolist()[:2] == [4.0, 2.5]  # 8 + 8, 8 + 2 samples
    assert all(value > 1e6 for value in run.series("time/memory_bytes").values.tolist())
    bare, _ = fit()
    assert bare.weights_sha256 == run.weights_sha256
    assert memory(torch.device("cpu")) > 1e6


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_throughput_says_the_peak_on_a_cuda_device() -> None:
    before = torch.empty(2**20, device="cuda").element_size() * 2**20
    assert memory(torch.device("cuda")) >= before


def test_inserted_values_are_in_the_row(fit: Callable[..., Any], resumes_exactly: Callable[..., Any]) -> None:
    def make() -> list[treadle.Callback]:
        return [HistoryInsertion(lambda s: {"own/twice": torch.tensor(2.0 * s.progress.epoch)})]

    run, _ = resumes_exactly(make)
    assert run.history["own/twice"] == [2.0, 4.0, 6.0]
    assert len(run.history["train/loss"]) == 3
    cut, _ = fit(make(), max_steps=6)  # ends in the middle of the second epoch
    assert cut.history["own/twice"] == [2.0, 2.0]
    assert cut.history["epoch"] == [1, 2]


def test_insertions_that_cannot_be(fit: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="'epoch'"):
        fit([HistoryInsertion(lambda state: {"epoch": 1.0})])
    with pytest.raises(TypeError, match="gave float"):
        fit([HistoryInsertion(lambda state: 1.0)])
    with pytest.raises(TypeError, match="function is 1"):
        HistoryInsertion(1)


def test_results_under_other_names(fit: Callable[..., Any]) -> None:
    seen = []

    class Look(treadle.Callback):
        def on_epoch_end(self, state: treadle.State) -> None:
            seen.append(state.results["acc"])

    run, _ = fit([Look(), MetricRename({"val/accuracy": "acc", "train/loss": "train_loss"})])
    assert run.history["acc"] == run.history["val/accuracy"] == seen
    assert run.history["train_loss"] == run.history["train/loss"]
    seldom = treadle.Every(epochs=2)
    run, _ = fit([MetricRename({"val/accuracy": "acc"})], eval_every=seldom, max_epochs=2)
    assert run.history["acc"][-1] == run.history["val/accuracy"][-1]
    with pytest.raises(ValueError, match=r"no result 'val/acc'. Known results: .*val/accuracy"):
        fit([MetricRename({"val/acc": "acc"})])
    with pytest.raises(ValueError, match="must be different"):
        MetricRename({"a": "c", "b": "c"})
    with pytest.raises(TypeError, match="names is"):
        MetricRename(["a"])


@pytest.mark.parametrize(
    ("options", "fit_options", "expected"),
    [
        ({"every": treadle.Every(epochs=2)}, {"max_epochs": 5}, [8, 16]),
        ({"every": treadle.Every(epochs=2), "skip_first": False}, {"max_epochs": 5}, [4, 8, 16]),
        ({"every": treadle.Every(epochs=2), "also_last": True}, {"max_epochs": 5}, [8, 16, 20]),
        ({"every": treadle.Every(epochs=2), "also_last": True}, {"max_epochs": 4}, [8, 16]),
        ({"every": treadle.Every(steps=5)}, {}, [5, 10]),
        ({"every": treadle.Every(steps=5), "skip_first": False, "also_last": True}, {}, [1, 5, 10, 12]),
        ({"every": treadle.Every(steps=5, epochs=1)}, {}, [4, 5, 8, 10, 12]),
        ({"every": treadle.Every(epochs=2), "also_last": True}, {"max_steps": 6}, [6]),
    ],
)
def test_functions_are_called_every_so_often(
    fit: Callable[..., Any], options: Any, fit_options: Any, expected: list[int]
) -> None:
    called: list[int] = []
    fit([FunctionEvery(lambda state: called.append(state.progress.step), **options)], **fit_options)
    assert called == expected


def test_a_function_is_not_called_twice_after_a_restart(fit: Callable[..., Any]) -> None:
    called: list[int] = []

    def remember(state: treadle.State) -> None:
        called.append(state.progress.step)

    def make() -> list[treadle.Callback]:
        return [FunctionEvery(remember, treadle.Every(steps=3), also_last=True)]

    run, _ = fit(make(), "whole", max_steps=7)
    assert called == [3, 6, 7]
    fit(make(), "whole", resume=run.path, max_steps=7)
    assert called == [3, 6, 7]
    called.clear()
    fit(make(), "cut", resume=run.path / "checkpoints" / "step-00000003", max_steps=7)
    assert called == [6, 7]


def test_function_every_checks_its_arguments() -> None:
    with pytest.raises(TypeError, match="function is 3"):
        FunctionEvery(3, treadle.Every(steps=1))
    with pytest.raises(TypeError, match="every is 3"):
        FunctionEvery(print, 3)
