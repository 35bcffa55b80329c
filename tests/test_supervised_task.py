"""What a supervised task does with losses that are modules."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import treadle

X, Y = torch.randn(12, 4, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3


class Compared(nn.Module):
    """A loss with a network of its own, which features are compared in."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Linear(3, 2)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return self.network(output).square().mean()  # type: ignore[no-any-return]


def test_losses_by_name_are_moved_and_saved_with_the_task() -> None:
    weighted = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]))
    losses = {"classes": weighted, "same": weighted, "plain": cross_entropy, "empty": nn.MSELoss()}
    task = treadle.SupervisedTask(nn.Linear(4, 3), losses)
    saved = [name for name in task.state_dict() if not name.startswith("model.")]
    assert saved == ["stateful_losses.0.weight"]
    task.to("meta")
    assert weighted.weight is not None
    assert weighted.weight.device.type == "meta"
    assert "stateful_losses.0.weight" not in treadle.SupervisedTask(nn.Linear(4, 3), weighted).state_dict()


def test_a_network_inside_of_a_loss_is_not_trained() -> None:
    for loss in (Compared(), {"one": Compared(), "classes": cross_entropy}):
        compared = loss if isinstance(loss, nn.Module) else loss["one"]
        assert isinstance(compared, Compared)
        before = compared.network.weight.detach().clone()
        task = treadle.SupervisedTask(nn.Linear(4, 3), loss, torch.optim.SGD, lr=0.1)
        treadle.Trainer(max_epochs=2, run_dir=None, progress=False, seed=0).fit(task, (X, Y))
        assert torch.equal(compared.network.weight, before)
        assert compared.network.weight.grad is None  # and its gradients are cleared with the others


def test_a_metric_function_may_turn_outputs_into_arrays() -> None:
    def right(output: Any, target: Tensor) -> float:
        return float((output["scores"].numpy().argmax(1) == target.numpy()).mean())

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, inputs: Tensor) -> dict[str, Tensor]:
            return {"scores": self.layer(inputs)}

    def loss(output: Any, target: Tensor) -> Tensor:
        return cross_entropy(output["scores"], target)

    task = treadle.SupervisedTask(Named(), loss, metrics={"right": right})
    inputs, targets = torch.randn(12, 4), torch.arange(12) % 3
    run = treadle.Trainer(max_epochs=1, run_dir=None, progress=False).fit(task, (inputs, targets))
    assert 0 <= run.history["train/right"][0] <= 1
