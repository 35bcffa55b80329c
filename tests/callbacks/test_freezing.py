"""Parameters that stay where they are for a while."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import treadle
from treadle.callbacks import Freezing


class Watch(treadle.Callback):
    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []
        self.gradients: list[set[str]] = []
        self.states: list[int] = []

    def on_before_optimizer_step(self, state: treadle.State) -> None:
        self.gradients.append({n for n, p in state.task.named_parameters() if p.grad is not None})

    def on_step_end(self, state: treadle.State) -> None:
        self.weights.append({n: v.clone() for n, v in state.task.state_dict().items()})
        self.states.append(len(state.optimizers["optimizer"].state))

    def moved(self, name: str) -> list[bool]:
        pairs = zip(self.weights, self.weights[1:], strict=False)
        return [not torch.equal(one[name], other[name]) for one, other in pairs]


@pytest.mark.parametrize(("options", "thawed"), [({"epochs": 1}, 5), ({"steps": 6}, 7), ({}, 99)])
def test_frozen_parameters_stay_and_thaw(fit: Callable[..., Any], options: Any, thawed: int) -> None:
    watch = Watch()
    _, task = fit([Freezing(["model.0.*", "model.1.*"], **options), watch])
    for name in ("model.0.weight", "model.1.bias", "model.1.running_mean"):
        assert watch.moved(name) == [step >= thawed for step in range(2, 13)], name
    assert all(watch.moved("model.4.weight"))
    assert watch.gradients[0] == {"model.4.weight", "model.4.bias"}
    assert watch.states[:4] == [2] * 4  # the optimizer has no state of what is frozen
    assert watch.states[-1] == (6 if options else 2)
    assert all(parameter.requires_grad for parameter in task.parameters())
    assert task.model[1].training


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, partial(torch.optim.SGD, momentum=0.9)])
def test_gradual_unfreezing_survives_a_restart(resumes_exactly: Callable[..., Any], optimizer: Any) -> None:
    def make() -> list[treadle.Callback]:
        return [Freezing(["model.0.*"], steps=5), Freezing(["model.1.*"], epochs=1)]

    def task() -> treadle.Task:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
        return treadle.SupervisedTask(model, nn.CrossEntropyLoss(), optimizer, lr=0.01)

    resumes_exactly(make, cuts=(2, 4, 5, 6), task=task)


def test_parameters_thaw_when_the_fit_fails(fit: Callable[..., Any]) -> None:
    class Fail(treadle.Callback):
        def on_step_end(self, state: treadle.State) -> None:
            assert not state.task.model[0].weight.requires_grad
            raise RuntimeError("failed on purpose")

    _, task = fit(max_steps=0)
    with pytest.raises(RuntimeError, match="on purpose"):
        fit([Freezing(["model.0.*"]), Fail()], task=task)
    assert all(parameter.requires_grad for parameter in task.parameters())


def test_what_cannot_be_frozen(fit: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"named 'modle.\*'. The task has model.0.weight"):
        fit([Freezing(["modle.*"])])
    with pytest.raises(ValueError, match="leave no parameter to train"):
        fit([Freezing(["model.[01].*"]), Freezing(["model.4.*"])])
    with pytest.raises(TypeError, match="give a list"):
        Freezing("model.*")
    with pytest.raises(ValueError, match="epochs is 0"):
        Freezing(["a"], epochs=0)
