"""Where the time of an epoch goes."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from torch import nn

import treadle
from treadle.callbacks import StepTimes
from treadle.report.timing import times_of


class Slow(nn.Module):
    """A hundredth of a second forward, two back."""

    class Sleep(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, inputs: torch.Tensor) -> torch.Tensor:
            time.sleep(0.01)
            return inputs.clone()

        @staticmethod
        def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
            time.sleep(0.02)
            return gradient

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return Slow.Sleep.apply(self.layer(inputs))


class SlowData(torch.utils.data.Dataset[Any]):
    """A two-hundredth of a second for each sample."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        time.sleep(0.005)
        return torch.full((5,), float(index)), index % 3


def test_each_part_has_its_time(fit: Any) -> None:
    class Other(treadle.Callback):
        def on_step_end(self, state: treadle.State) -> None:
            time.sleep(0.03)

    task = treadle.SupervisedTask(Slow(), nn.functional.cross_entropy, torch.optim.SGD, lr=0.1)
    data = treadle.Loader(SlowData(), 4)
    run = fit([StepTimes(), Other()], task=task, train=data, val=data, max_epochs=1).run
    seconds = {name: run.history[f"time/{name}"][0] for name in ("data", "forward", "backward", "other")}
    # Two steps; sleeping takes at least as long as it is told, and on a busy machine longer. The callbacks
    # after the first step are counted with the wait for the second.
    assert 0.04 + 0.03 <= seconds["data"] < 0.3
    assert 0.02 <= seconds["forward"] < 0.2
    assert 0.04 <= seconds["backward"] < 0.3
    assert 0.03 <= seconds["other"] < 0.2
    assert sum(seconds.values()) == pytest.approx(run.history["time/epoch"][0], rel=0.2)
    inside = [part.name for part in times_of(run).inside]
    assert inside[0] == "time/data"
    assert set(inside) == {f"time/{name}" for name in ("data", "forward", "backward", "optimizer", "other")}


def test_it_leaves_no_trace(resumes_exactly: Any, fit: Any) -> None:
    whole = resumes_exactly(lambda: [StepTimes()])
    assert whole.run.weights_sha256 == fit([], "without").run.weights_sha256
