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
    # Two steps; sleeping takes at least as long as it is told, and on a busy machine longer.
    assert 0.04 <= seconds["data"] < 0.3
    assert 0.02 <= seconds["forward"] < 0.2
    assert 0.04 <= seconds["backward"] < 0.3
    assert 0.06 <= seconds["other"] < 0.3
    assert sum(seconds.values()) == pytest.approx(run.history["time/epoch"][0], rel=0.2)
    parts = {part.name.partition(" (")[0]: part.seconds for part in times_of(run).parts}
    assert parts["data"] == seconds["data"]
    assert {"data", "forward", "backward", "optimizer", "rest of the steps", "evaluation"} <= set(parts)


def test_waiting_for_checkpoints_is_told_from_other_time(fit: Any) -> None:
    class Slowly(treadle.Checkpoints):
        def _score(self, state: treadle.State) -> float | None:
            time.sleep(0.05)
            return super()._score(state)

    saves = Slowly(treadle.Every(steps=1), background=False)
    run = fit([StepTimes()], "saved", checkpoint=saves, max_epochs=1).run
    steps, seconds = run.fields["step"], run.history["time/checkpoint"][0]
    assert seconds >= 0.05 * steps > run.history["time/other"][0]
    assert run.fields["saving_seconds"] >= seconds
    parts = {part.name.partition(" (")[0]: part.seconds for part in times_of(run).parts}
    assert parts["checkpoints"] == run.fields["saving_seconds"]


def test_a_trainer_that_writes_a_report_has_one(tmp_path: Any) -> None:
    def columns(**arguments: Any) -> set[str]:
        task = treadle.SupervisedTask(nn.Linear(5, 3), nn.functional.cross_entropy)
        data = (torch.randn(8, 5), torch.zeros(8, dtype=torch.int64))
        trainer = treadle.Trainer(1, run_dir=tmp_path / "run", progress=False, **arguments)
        return {name for name in trainer.fit(task, data).history if name.startswith("time/")}

    assert "time/backward" in columns()
    assert "time/backward" in columns(callbacks=[StepTimes()])
    assert "time/backward" not in columns(report=None)


def test_it_leaves_no_trace(resumes_exactly: Any, fit: Any) -> None:
    whole = resumes_exactly(lambda: [StepTimes()])
    assert whole.run.weights_sha256 == fit([], "without").run.weights_sha256
