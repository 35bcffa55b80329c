"""The curves of the named schedules, against formulas written down independently."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import MultiStepLR, OneCycleLR, StepLR

from treadle import schedules
from treadle.schedules import Epochs, Fraction, Horizon, Schedule, Steps, as_schedule

TOTAL, WARMUP, PEAK = 40, 7, 0.3


def sgd(*rates: float, **options: Any) -> torch.optim.SGD:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates or (PEAK,)]
    return torch.optim.SGD(groups, lr=PEAK, **options)


def trace(schedule: Any, horizon: Horizon, steps: int, optimizer: Any = None) -> list[float]:
    """The learning rate that each step is taken with."""
    optimizer = optimizer or sgd()
    bound = as_schedule(schedule).bind(optimizer, horizon)
    rates = []
    for _ in range(steps):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        bound.step({})
    return rates


def run_of(steps: int) -> Horizon:
    return Horizon(steps, steps_per_epoch=10, epochs=steps / 10)


# What transformers.optimization documents, as functions of the number of steps done.


def hf_warmup(step: int) -> float | None:
    return step / max(1, WARMUP) if step < WARMUP else None


def hf_constant(step: int) -> float:
    warm = hf_warmup(step)
    return 1.0 if warm is None else warm


def hf_linear(step: int) -> float:
    warm = hf_warmup(step)
    return max(0.0, (TOTAL - step) / max(1, TOTAL - WARMUP)) if warm is None else warm


def hf_cosine(step: int, cycles: float = 0.5) -> float:
    warm = hf_warmup(step)
    if warm is not None:
        return warm
    progress = (step - WARMUP) / max(1, TOTAL - WARMUP)
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * cycles * 2.0 * progress)))


def hf_restarts(step: int, cycles: int = 3) -> float:
    warm = hf_warmup(step)
    if warm is not None:
        return warm
    progress = (step - WARMUP) / max(1, TOTAL - WARMUP)
    return 0.0 if progress >= 1 else max(0.0, 0.5 * (1.0 + math.cos(math.pi * ((cycles * progress) % 1.0))))


def hf_polynomial(step: int, power: float = 2.0, end: float = 1e-4) -> float:
    warm = hf_warmup(step)
    if warm is not None:
        return warm
    if step > TOTAL:
        return end / PEAK
    remaining = 1 - (step - WARMUP) / (TOTAL - WARMUP)
    return ((PEAK - end) * remaining**power + end) / PEAK


def hf_inverse_sqrt(step: int) -> float:
    warm = hf_warmup(step)
    return 1.0 / math.sqrt((step + WARMUP - WARMUP) / WARMUP) if warm is None else warm


def hf_wsd(step: int, decay: int = 8, kind: str = "linear") -> float:
    if step < WARMUP:
        return step / WARMUP
    if step < TOTAL - decay:
        return 1.0
    if step >= TOTAL:
        return 0.0
    progress = (step - (TOTAL - decay)) / decay
    return 1.0 - progress if kind == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))


FORMULAS: list[tuple[Schedule, Callable[[int], float]]] = [
    (schedules.Constant(WARMUP), hf_constant),
    (schedules.LinearDecay(WARMUP), hf_linear),
    (schedules.CosineDecay(WARMUP), hf_cosine),
    (schedules.CosineWithRestarts(3, WARMUP), hf_restarts),
    (schedules.PolynomialDecay(2.0, WARMUP, final=1e-4 / PEAK), hf_polynomial),
    (schedules.InverseSquareRootDecay(WARMUP), hf_inverse_sqrt),
    (schedules.WarmupStableDecay(WARMUP, decay=0.2), hf_wsd),
    (schedules.CosineDecay(WARMUP, decay=8), partial(hf_wsd, kind="cosine")),
]


@pytest.mark.parametrize(("schedule", "formula"), FORMULAS, ids=lambda x: type(x).__name__)
def test_c8_curves_are_those_of_transformers(schedule: Schedule, formula: Callable[[int], float]) -> None:
    rates = trace(schedule, run_of(TOTAL), TOTAL + 3)
    expected = [PEAK * formula(step) for step in range(TOTAL + 1)]
    assert rates[: TOTAL + 1] == pytest.approx(expected, rel=1e-12, abs=1e-15)
    if not isinstance(schedule, schedules.InverseSquareRootDecay):
        assert set(rates[TOTAL:]) == {rates[TOTAL]}  # past the end it stays; their cosine rises again


def torch_trace(make: Callable[[Any], Any], steps: int, **options: Any) -> tuple[list[float], list[float]]:
    optimizer = sgd(**options)
    scheduler = make(optimizer)
    rates, momenta = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch wants optimizer.step first
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            momenta.append(optimizer.param_groups[0]["momentum"])
            if len(rates) < steps:
                scheduler.step()
    return rates, momenta


@pytest.mark.parametrize("optimizer_class", [torch.optim.SGD, torch.optim.AdamW])
def test_one_cycle_is_that_of_torch(optimizer_class: Any) -> None:
    theirs, momenta = torch_trace(
        partial(OneCycleLR, max_lr=PEAK, total_steps=TOTAL, pct_start=0.3), TOTAL, momentum=0.5
    )
    optimizer = optimizer_class([nn.Parameter(torch.zeros(1))], lr=PEAK)
    bound = schedules.OneCycle().bind(optimizer, run_of(TOTAL))
    ours = []
    for _ in range(TOTAL):
        group = optimizer.param_groups[0]
        ours.append((group["lr"], group["betas"][0] if "betas" in group else group["momentum"]))
        bound.step({})
    assert [rate for rate, _ in ours] == pytest.approx(theirs, rel=1e-12)
    assert [momentum for _, momentum in ours] == pytest.approx(momenta, rel=1e-12)
    assert optimizer.param_groups[0]["lr"] == PEAK / 25e4  # past the end it stays at the last


def test_one_cycle_can_leave_the_momentum_alone() -> None:
    optimizer = torch.optim.Adagrad([nn.Parameter(torch.zeros(1))], lr=PEAK)
    with pytest.raises(ValueError, match="Adagrad has neither momentum nor betas"):
        schedules.OneCycle().bind(optimizer, run_of(TOTAL))
    rates = trace(schedules.OneCycle(momentum=None), run_of(TOTAL), TOTAL, optimizer)
    assert max(rates) == PEAK
    assert rates.index(PEAK) == 11


def test_stairs_are_those_of_torch_on_epochs() -> None:
    """Ten steps an epoch: torch's schedulers tick every tenth step, ours are given in epochs."""
    for ours, make in (
        (schedules.StepDecay(Epochs(2), 0.5), partial(StepLR, step_size=2, gamma=0.5)),
        (
            schedules.MultiStepDecay([Epochs(3), Epochs(1)], 0.5),
            partial(MultiStepLR, milestones=[1, 3], gamma=0.5),
        ),
    ):
        theirs, _ = torch_trace(make, TOTAL // 10)
        assert trace(ours, run_of(TOTAL), TOTAL) == [rate for rate in theirs for _ in range(10)]


def test_a_function_of_the_step_for_all_groups_or_one_each() -> None:
    optimizer = sgd(1.0, 10.0)
    bound = schedules.Lambda(lambda step: 1 / (step + 1)).bind(optimizer, Horizon())
    bound.step({})
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 5.0]
    optimizer = sgd(1.0, 10.0)
    bound = schedules.Lambda([lambda step: 0.5**step, lambda step: 1.0], warmup=4).bind(optimizer, Horizon())
    bound.step({})
    assert [group["lr"] for group in optimizer.param_groups] == [0.125, 2.5]
    with pytest.raises(ValueError, match="2 functions are given for 1 parameter groups"):
        schedules.Lambda([abs, abs]).bind(sgd(), Horizon())


def test_every_group_keeps_its_own_rate() -> None:
    optimizer = sgd(0.1, 1.0)
    bound = schedules.LinearDecay().bind(optimizer, run_of(10))
    for _ in range(5):
        bound.step({})
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.5]


def test_a_rate_in_a_tensor_stays_that_tensor() -> None:
    rate = torch.tensor(0.5)
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=rate)
    bound = schedules.LinearDecay().bind(optimizer, run_of(10))
    bound.step({})
    assert optimizer.param_groups[0]["lr"] is rate
    assert float(rate) == pytest.approx(0.45)


def test_warm_up_may_start_above_zero_and_the_decay_end_there() -> None:
    rates = trace(schedules.LinearDecay(4, final=0.5, start=0.2), run_of(12), 14)
    expected = [0.2, 0.4, 0.6, 0.8, 1.0, 0.9375, 0.875, 0.8125, 0.75, 0.6875, 0.625, 0.5625, 0.5, 0.5]
    assert rates == pytest.approx([PEAK * factor for factor in expected])


@pytest.mark.parametrize(
    "five", [5, Steps(5), "5 steps", Epochs(0.5), "0.5 epochs", 0.125, Fraction(0.125), "12.5%"]
)
def test_durations_in_steps_epochs_and_fractions(five: Any) -> None:
    assert trace(schedules.Constant(five), run_of(TOTAL), TOTAL) == trace(
        schedules.Constant(5), run_of(TOTAL), TOTAL
    )


def test_a_duration_that_is_not_nothing_lasts_a_step() -> None:
    assert Fraction(0.001).steps(Horizon(10), "x") == 1
    assert Epochs(0.0).steps(Horizon(10, 10), "x") == 0


@pytest.mark.parametrize("schedule", [one for one, _ in FORMULAS] + [schedules.OneCycle(momentum=None)])
def test_a_run_of_one_step_or_none(schedule: Schedule) -> None:
    """Nothing divides by zero; where the warm-up is longer than the run it says so."""
    for steps in (0, 1):
        try:
            assert len(trace(schedule, Horizon(steps, 1, steps), 3)) == 3
        except ValueError as error:
            assert "the run" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        (schedules.CosineDecay(), r"CosineDecay ends with the run.*Trainer\(max_steps=\.\.\.\)"),
        (schedules.OneCycle(), "OneCycle ends with the run.*max_steps"),
        (schedules.Constant(0.1), r"Constant: warmup is a fraction of the run \(0.1\).*not known before"),
        (schedules.Constant(Epochs(2)), r"Constant: warmup is given in epochs \(2\).*have no length"),
        (schedules.StepDecay(Epochs(1)), "StepDecay: every is given in epochs"),
    ],
)
def test_c8_an_unknown_horizon_is_said_before_training(schedule: Schedule, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        schedule.bind(sgd(), Horizon(None, None, 3))


def test_steps_need_no_horizon() -> None:
    unknown = Horizon(None, None, 3)
    assert trace(schedules.Constant(5), unknown, 9) == trace(schedules.Constant(5), run_of(TOTAL), 9)
    assert trace(schedules.CosineDecay(5, total=40), unknown, 45) == trace(
        schedules.CosineDecay(5), run_of(40), 45
    )
    assert len(trace(schedules.StepDecay(3), unknown, 9)) == 9


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: schedules.Constant(-1), "Constant: warmup: Steps: count is -1"),
        (lambda: schedules.Constant(1.5), "of_run is 1.5; it must be from 0 to 1. Steps are given as an int"),
        (lambda: schedules.Constant(True), "Constant: warmup is True"),
        (lambda: schedules.Constant("2 weeks"), "'2 weeks' is no duration"),
        (lambda: schedules.Constant([1]), r"Constant: warmup is \[1\]"),
        (lambda: schedules.Constant(1, start=2), "Constant: start is 2; it must be from 0 to 1"),
        (lambda: schedules.CosineDecay(final=-0.1), "CosineDecay: final is -0.1"),
        (lambda: schedules.CosineWithRestarts(0), "cycles is 0; it must be a whole number from 1"),
        (lambda: schedules.PolynomialDecay(0), "power is 0; it must be positive"),
        (lambda: schedules.StepDecay(1, factor=0), "factor is 0; it must be positive"),
        (lambda: schedules.StepDecay(0).bind(sgd(), Horizon()), "every is 0 steps"),
        (lambda: schedules.InverseSquareRootDecay().bind(sgd(), Horizon()), "timescale is 0 steps"),
        (lambda: schedules.Lambda(3), "Lambda: function is 3"),
        (lambda: schedules.Lambda([3]), r"function is \[3\]"),
        (lambda: schedules.Constant(50).bind(sgd(), Horizon(40)), "lasts 50 steps, and the run has 40"),
        (
            lambda: schedules.WarmupStableDecay(30, 20).bind(sgd(), Horizon(40)),
            r"warmup \(30 steps\) and decay \(20 steps\) are longer than the run of 40",
        ),
        (lambda: schedules.OneCycle(50).bind(sgd(), Horizon(40)), "rise lasts 50 steps, and the run has 40"),
        (lambda: schedules.OneCycle(momentum=(0.8, 1.5)), "momentum is 1.5"),
        (lambda: Schedule(partial(StepLR, step_size=1), every="week"), "every is 'week'"),
        (lambda: Schedule(None), "scheduler is None"),
    ],
)
def test_wrong_arguments_are_said(make: Callable[[], Any], said: str) -> None:
    with pytest.raises((ValueError, TypeError), match=said):
        make()


def test_schedules_from_configurations() -> None:
    made = as_schedule({"class_path": "treadle.schedules.CosineDecay", "init_args": {"warmup": "2 epochs"}})
    assert isinstance(made, schedules.CosineDecay)
    assert made.warmup == Epochs(2)
    assert isinstance(as_schedule(schedules.LinearDecay), schedules.LinearDecay)
    assert isinstance(as_schedule(partial(schedules.StepDecay, every=3)), schedules.StepDecay)
    torchs = as_schedule({"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 2}})
    assert type(torchs) is Schedule
    assert torchs.every == "epoch"
