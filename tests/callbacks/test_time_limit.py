"""A limit on the time of a run, which counts the parts before it was resumed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

import treadle
from treadle.callbacks import TimeLimit

Fit = Callable[..., Any]


class Clock:
    """A clock that every step moves on by a second, and every evaluation by ten."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Taking(treadle.Callback):
    order = -10.0

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_step_end(self, state: treadle.State) -> None:
        self.clock.now += 1.0

    def on_eval_end(self, state: treadle.State) -> None:
        self.clock.now += 10.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


@pytest.mark.parametrize(
    ("limit", "step"), [(3, 3), (timedelta(seconds=6.5), 4), (14, 4), (15.5, 6), (100, 12), (0.5, 1)]
)
def test_it_ends_the_run_after_the_step_or_the_evaluation_in_which_its_time_is_up(
    fit: Fit, clock: Clock, limit: Any, step: int
) -> None:
    limited = TimeLimit(limit)
    run, _ = fit([limited, Taking(clock)], "run")  # four steps an epoch, three epochs
    assert run.step == step
    assert run.status == ("finished" if step == 12 else "stopped")
    assert step == 12 or "seconds are over (TimeLimit)" in run.reason
    assert run.checkpoints[-1].name == f"step-{step:08d}"  # saved, and evaluated
    assert len(run.history["val/loss"]) == -(-step // 4)


def test_earlier_parts_of_the_run_count(fit: Fit, clock: Clock) -> None:
    assert fit([TimeLimit(2), Taking(clock)], "run", eval_every=None).run.step == 2
    clock.now += 500.0  # between the parts
    assert fit([TimeLimit(2), Taking(clock)], "run", resume="last", eval_every=None).run.step == 2  # stays so
    assert fit([TimeLimit(5), Taking(clock)], "run", resume="last", eval_every=None).run.step == 5
    whole, _ = fit([TimeLimit(99), Taking(clock)], "run", resume="last", eval_every=None)
    plain, _ = fit([], "plain", eval_every=None)
    assert whole.weights_sha256 == plain.weights_sha256  # three times cut, and exact
    assert whole.series("train/loss").values.tolist() == plain.series("train/loss").values.tolist()


def test_a_new_run_has_all_of_its_time(fit: Fit, clock: Clock) -> None:
    limited = TimeLimit(30)
    for _ in range(2):
        run, _ = fit([limited, Taking(clock)], eval_every=None)
        assert run.step == 12
        assert limited.seconds == 12.0


def test_by_a_real_clock(fit: Fit) -> None:
    class Slow(treadle.Callback):
        def on_step_start(self, state: treadle.State) -> None:
            time.sleep(0.02)

    began = time.perf_counter()
    run, _ = fit([TimeLimit(0.1), Slow()], max_steps=10_000, max_epochs=None)
    assert 1 <= run.step <= 6
    assert time.perf_counter() - began < 30


@pytest.mark.parametrize("limit", [0, -1.0, math.inf, math.nan, timedelta(0)])
def test_a_limit_is_positive_and_finite(limit: Any) -> None:
    with pytest.raises(ValueError, match="TimeLimit: limit is"):
        TimeLimit(limit)


@pytest.mark.parametrize("limit", ["1h", None, True])
def test_a_limit_is_a_length_of_time(limit: Any) -> None:
    with pytest.raises(TypeError, match=r"give seconds or a datetime\.timedelta"):
        TimeLimit(limit)
