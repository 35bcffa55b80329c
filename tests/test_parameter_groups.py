"""Parameters that join an optimizer in the middle of a run, and gradients that turn out to be sparse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding

import treadle

GENERATOR = torch.Generator().manual_seed(2)
X, Y = torch.randn(40, 6, generator=GENERATOR), torch.arange(40) % 3


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


class Growing(treadle.Callback):
    """The first layer trains from the third step on, and a new one from the fifth."""

    def on_step_start(self, state: treadle.State) -> None:
        optimizer, model = state.optimizers["optimizer"], state.task.model
        if state.progress.step == 2:
            optimizer.add_param_group({"params": list(model[0].parameters()), "lr": 0.3})
        if state.progress.step == 4:
            model.append(new_layer())
            optimizer.add_param_group({"params": list(model[3].parameters())})


def new_layer() -> nn.Module:
    torch.manual_seed(1)
    return nn.Linear(3, 3)


def by_hand(clip: float | None) -> list[Tensor]:
    model = network()
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.5)
    for step in range(8):
        if step == 2:
            optimizer.add_param_group({"params": list(model[0].parameters()), "lr": 0.3})
        if step == 4:
            model.append(new_layer())
            optimizer.add_param_group({"params": list(model[3].parameters())})
        inputs, targets = X[5 * step : 5 * step + 5], Y[5 * step : 5 * step + 5]
        model.zero_grad()
        cross_entropy(model(inputs), targets).backward()
        if clip is not None:
            held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            nn.utils.clip_grad_norm_(held, clip)
        optimizer.step()
    return [parameter.detach() for parameter in model.parameters()]


@pytest.mark.parametrize("clip", [None, 0.05])
def test_parameters_that_join_are_clipped_cleared_and_stepped(clip: float | None) -> None:
    model = network()
    task = treadle.SupervisedTask(model, cross_entropy, torch.optim.SGD(model[2].parameters(), lr=0.5))
    trainer = treadle.Trainer(
        max_epochs=1, seed=0, run_dir=None, progress=False, clip_norm=clip, callbacks=[Growing()]
    )
    trainer.fit(task, treadle.Loader((X, Y), 5))
    found = [parameter.detach() for parameter in model.parameters()]
    expected = by_hand(clip)
    assert len(found) == len(expected) == 6
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(found, expected, strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())


class Words(nn.Module):
    """Sparse gradients without a `sparse` attribute to know it by."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Parameter(torch.randn(10, 3))
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, words: Tensor) -> Tensor:
        return embedding(words, self.table, sparse=True) * self.scale


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # torch's own, of its Adagrad
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adagrad])
def test_sparse_gradients_are_stepped_without_the_fused_kernel(kind: Any) -> None:
    words = torch.arange(40) % 10
    task = treadle.SupervisedTask(Words(), cross_entropy, kind, lr=0.1)
    trainer = treadle.Trainer(max_epochs=1, seed=0, run_dir=None, progress=False)
    trainer.fit(task, treadle.Loader((words, Y), 10))
    model = Words()
    optimizer = kind(model.parameters(), lr=0.1)
    for start in range(0, 40, 10):
        optimizer.zero_grad()
        cross_entropy(model(words[start : start + 10]), Y[start : start + 10]).backward()
        optimizer.step()
    assert torch.allclose(task.model.table, model.table, atol=1e-6)
    assert not task.optimizers["optimizer"]._optimizer_step_pre_hooks  # it looked once
