"""From fit to fit: schedules begin from the rate that the optimizer was made with, or was given by hand."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.optim import lr_scheduler

import treadle
from treadle import schedules

X = torch.linspace(-1, 1, 12).reshape(6, 2)
Y = X.sum(1, keepdim=True)  # one batch, so one step an epoch
SGD = partial(torch.optim.SGD, momentum=0.5)
EVERY_STEP = partial(treadle.Schedule, every="step")


class Rates(treadle.Callback):
    """What every step is taken with: rate and momentum."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float]] = []

    def on_step_start(self, state: treadle.State) -> None:
        (group,) = state.optimizers["optimizer"].param_groups
        momentum = group["momentum"] if "momentum" in group else group["betas"][0]
        self.seen.append((float(group["lr"]), float(momentum)))


def task_of(scheduler: Any, optimizer: Any = SGD, lr: Any = 0.1) -> treadle.SupervisedTask:
    torch.manual_seed(0)
    return treadle.SupervisedTask(nn.Linear(2, 1), mse_loss, optimizer, lr=lr, scheduler=scheduler)


def rates(task: treadle.Task, folder: Path | None = None, epochs: int = 3, **given: Any) -> Any:
    seen = Rates()
    trainer = treadle.Trainer(max_epochs=epochs, seed=0, progress=False, run_dir=folder, callbacks=[seen])
    trainer.fit(task, treadle.Loader((X, Y), 6), **given)
    return seen.seen


SCHEDULES = {
    "cosine": partial(lr_scheduler.CosineAnnealingLR, T_max=3),
    "steps": partial(lr_scheduler.StepLR, step_size=1),
    "exponential": partial(lr_scheduler.ExponentialLR, gamma=0.5),
    "linear": partial(lr_scheduler.LinearLR, total_iters=3),
    "lambda": partial(lr_scheduler.LambdaLR, lr_lambda=lambda epoch: 0.5**epoch),
    "one cycle": EVERY_STEP(partial(lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=9)),
    "plateau": treadle.Schedule(
        partial(lr_scheduler.ReduceLROnPlateau, patience=0, threshold=9.0), monitor="train/loss"
    ),
    "own cosine": schedules.CosineDecay(),
    "own cycle": schedules.OneCycle(),
    "warm-up": schedules.Constant(warmup=2, start=0.25),
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(
    "optimizer", [SGD, torch.optim.Adam, lambda p, lr: torch.optim.Adam(p, torch.tensor(lr))]
)
def test_a_further_fit_has_the_rates_of_the_first(name: str, optimizer: Any) -> None:
    task = task_of(SCHEDULES[name], optimizer)
    first = rates(task)
    assert len(set(first)) > 1
    assert rates(task) == first
    assert rates(task) == first  # and so has a third


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "one cycle"])
def test_a_rate_set_by_hand_in_between_counts(name: str) -> None:
    task = task_of(SCHEDULES[name])
    first = rates(task)
    task.optimizers["optimizer"].param_groups[0]["lr"] = 0.05
    halved = [(lr / 2, momentum) for lr, momentum in first]
    assert rates(task) == [pytest.approx(pair) for pair in halved]
    assert rates(task) == [pytest.approx(pair) for pair in halved]  # it is what the optimizer has now


def test_momentum_buffers_stay() -> None:
    task = task_of(SCHEDULES["cosine"])
    rates(task)
    (buffer, _) = (state["momentum_buffer"] for state in task.optimizers["optimizer"].state.values())
    kept = buffer.clone()
    rates(task, epochs=0)
    assert torch.equal(buffer, kept)
    assert bool(kept.any())


def test_a_rate_that_no_schedule_changed_is_left_alone() -> None:
    task = task_of(None)
    rates(task)
    task.optimizers["optimizer"].param_groups[0]["lr"] = 0.03
    assert rates(task) == [(0.03, 0.5)] * 3


def test_a_scheduler_built_for_the_very_optimizer_goes_on() -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.5)
    scheduler = lr_scheduler.StepLR(optimizer, step_size=1)
    task = treadle.SupervisedTask(model, mse_loss, optimizer, scheduler=scheduler)
    assert rates(task) == [(pytest.approx(0.1 * 0.1**epoch), 0.5) for epoch in range(3)]
    assert rates(task) == [(pytest.approx(0.1 * 0.1**epoch), 0.5) for epoch in range(3, 6)]


def test_a_fit_that_goes_on_is_no_further_fit(tmp_path: Path) -> None:
    whole = rates(task_of(SCHEDULES["steps"]), epochs=6)
    task = task_of(SCHEDULES["steps"])
    assert rates(task, tmp_path / "run", epochs=2) == whole[:2]
    assert rates(task, tmp_path / "run", epochs=6, resume="last") == whole[2:]  # and warns of nothing
    assert rates(task, tmp_path / "other", epochs=6) == whole


def test_a_fit_that_failed_leaves_no_decayed_rate_behind() -> None:
    task = task_of(SCHEDULES["steps"])
    first = rates(task)

    class Failing(treadle.Callback):
        def on_epoch_end(self, state: treadle.State) -> None:
            raise RuntimeError("as meant")

    with pytest.raises(RuntimeError, match="as meant"):
        rates(task, callbacks=[Failing()])
    assert rates(task) == first
