"""Entering an optimizer's step directly gives the same bits, and steps aside where somebody listens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.optimizer import register_optimizer_step_pre_hook

from treadle.direct_step import direct_step

OPTIMIZERS = [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.Adagrad]


def trained(
    kind: Any, step_of: Callable[[torch.optim.Optimizer], Callable[[], Any]], schedule: bool
) -> torch.Tensor:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = kind(model.parameters(), lr=0.1)
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.9) if schedule else None
    step = step_of(optimizer)
    for number in range(5):
        model(torch.full((4, 3), float(number))).square().mean().backward()
        step()
        optimizer.zero_grad()
        if scheduler is not None:
            scheduler.step()
    return model.weight.detach()


@pytest.mark.parametrize("schedule", [False, True])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_same_bits(kind: Any, schedule: bool) -> None:
    assert torch.equal(trained(kind, direct_step, schedule), trained(kind, lambda o: o.step, schedule))


def wrapped_calls(monkeypatch: pytest.MonkeyPatch, optimizer: torch.optim.Optimizer) -> list[int]:
    """Counts how often the step goes through torch's wrapper."""
    calls: list[int] = []
    original = torch.autograd.profiler.record_function.__enter__

    def entered(self: Any) -> Any:
        calls.append(1)
        return original(self)

    monkeypatch.setattr(torch.autograd.profiler.record_function, "__enter__", entered)
    return calls


def make() -> torch.optim.Optimizer:
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    return torch.optim.SGD([weight], lr=0.1)


def test_nothing_in_between_while_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer = make()
    calls = wrapped_calls(monkeypatch, optimizer)
    direct_step(optimizer)()
    assert calls == []


def test_hooks_that_come_later_are_called() -> None:
    optimizer, seen = make(), []
    step = direct_step(optimizer)
    step()
    handle = optimizer.register_step_post_hook(lambda *_: seen.append("own"))
    step()
    handle.remove()
    other = register_optimizer_step_pre_hook(lambda *_: seen.append("global"))
    step()
    other.remove()
    step()
    assert seen == ["own", "global"]


def test_a_profiler_sees_the_step() -> None:
    optimizer = make()
    step = direct_step(optimizer)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step()
    assert any("Optimizer.step#SGD.step" in event.key for event in profile.key_averages())


@pytest.mark.parametrize("late", [False, True])
def test_a_step_of_somebodys_own_is_used(late: bool) -> None:
    optimizer, seen = make(), []
    if late:
        step = direct_step(optimizer)
    optimizer.step = lambda *_: seen.append("own")  # type: ignore[method-assign,assignment]
    if not late:
        step = direct_step(optimizer)
    step()
    assert seen == ["own"]


def test_an_optimizer_of_another_make_is_stepped_as_it_is() -> None:
    class Own(torch.optim.SGD):
        stepped = 0

        def step(self, closure: Any = None) -> None:
            self.stepped += 1
            super().step(closure)

    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    optimizer = Own([weight], lr=0.5)
    direct_step(optimizer)()
    assert optimizer.stepped == 1
    assert torch.equal(weight.detach(), torch.full((2,), 0.5))
