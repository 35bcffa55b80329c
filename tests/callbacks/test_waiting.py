"""Callbacks do not wait for the device in a step, unless that is what they were asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import treadle
from treadle.callbacks import (
    ActivationStatistics,
    CallbackList,
    DeviceAugmentation,
    EarlyStopping,
    ExponentialMovingAverage,
    Freezing,
    GradientDistribution,
    GradientStatistics,
    IdenticalPredictions,
    LearningRateMonitor,
    NonFinitePolicy,
    StochasticWeightAveraging,
    ThresholdStopping,
    Throughput,
)

pytestmark = pytest.mark.usefixtures("values_stay_on_the_device")

EACH = treadle.Every(steps=1)
READS = (
    "aten._local_scalar_dense.default",
    "aten.is_nonzero.default",
    "aten.equal.default",
    "aten.nonzero.default",
)


class Reads(TorchDispatchMode):
    """Counts the operations that bring a number from the device to the host."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += str(function) in READS
        return function(*args, **(kwargs or {}))


class Enter(treadle.Callback):
    order = -1e6

    def __init__(self, reads: Reads) -> None:
        self.reads = reads

    def on_step_start(self, state: treadle.State) -> None:
        self.reads.__enter__()


class Leave(Enter):
    order = 1e6

    def on_step_start(self, state: treadle.State) -> None:
        pass

    def on_step_end(self, state: treadle.State) -> None:
        self.reads.__exit__(None, None, None)


def reads_in_steps(
    fit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, callbacks: list[treadle.Callback]
) -> int:
    """How often something is read in four steps."""
    reads = Reads()
    tolist = Tensor.tolist

    def counted(tensor: Tensor) -> Any:
        reads.count += 1
        return tolist(tensor)

    with monkeypatch.context() as patched:
        patched.setattr(Tensor, "tolist", counted)
        enter, leave = Enter(reads), Leave(reads)
        after: list[int] = []

        class Count(treadle.Callback):
            order = 1e6 + 1

            def on_step_end(self, state: treadle.State) -> None:
                after.append(reads.count)

        fit([enter, leave, Count(), *callbacks], max_epochs=1, log_every=1000, eval_every=None, val=None)
    return after[-1]


def test_no_callback_reads_in_a_step(fit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    callbacks = [
        ActivationStatistics(every=EACH),
        CallbackList([EarlyStopping("train/loss"), ThresholdStopping("train/loss", above=99.0)]),
        DeviceAugmentation(lambda batch: batch),
        ExponentialMovingAverage(),
        Freezing(["model.0.*"], steps=2),
        GradientDistribution(EACH),
        GradientStatistics(EACH, layers=True),
        IdenticalPredictions(),
        LearningRateMonitor(),
        NonFinitePolicy(),
        StochasticWeightAveraging(),
        Throughput(),
    ]
    assert reads_in_steps(fit, monkeypatch, callbacks) == 0


def test_skipping_reads_once_a_step(fit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert reads_in_steps(fit, monkeypatch, [NonFinitePolicy("skip")]) == 4


def test_the_count_sees_a_read(fit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    class Read(treadle.Callback):
        def on_after_loss(self, state: treadle.State) -> None:
            loss = state.loss.detach()
            float(loss)
            loss.tolist()
            bool(loss > 0)

    assert reads_in_steps(fit, monkeypatch, [Read()]) == 12
