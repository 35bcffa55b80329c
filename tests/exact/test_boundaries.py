"""What is easily forgotten at a boundary: kept gradients, seeds, scores, cancelled ends."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import treadle
from treadle.checkpoint import list_checkpoints, newest, weights_sha256

X, Y = torch.randn(24, 4, generator=torch.Generator().manual_seed(2)), torch.arange(24) % 3


class Momentum(treadle.SupervisedTask):
    """Momentum by keeping a part of the gradient."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(0.85)


def fit(folder: Path, kind: Any = treadle.SupervisedTask, epochs: int = 3, **options: Any) -> treadle.Run:
    torch.manual_seed(0)
    task = kind(nn.Linear(4, 3), cross_entropy, torch.optim.SGD, lr=0.1)
    resume = options.pop("resume", None)
    trainer = treadle.Trainer(
        **{"max_epochs": epochs, "run_dir": folder, "progress": False, "seed": 1} | options
    )
    return trainer.fit(task, treadle.Loader((X, Y), 8, shuffle=True), (X, Y), resume=resume)


def test_gradients_that_the_task_keeps_are_resumed(tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole", Momentum)
    part = fit(tmp_path / "part", Momentum, epochs=1)
    assert fit(tmp_path / "part", Momentum, resume=part.path).weights_sha256 == whole.weights_sha256
    assert whole.weights_sha256 != fit(tmp_path / "plain").weights_sha256


def test_a_drawn_seed_comes_with_the_checkpoint(tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole", seed=None)
    assert whole.path is not None
    first = list_checkpoints(whole.path / "checkpoints")[0].path
    assert fit(tmp_path / "fork", seed=None, resume=first).weights_sha256 == whole.weights_sha256


@pytest.mark.parametrize("every", [treadle.Every(steps=2), treadle.Every(epochs=1), treadle.Every(steps=3)])
def test_the_best_is_kept_whatever_the_clock_of_saving(tmp_path: Path, every: treadle.Every) -> None:
    checkpoints = treadle.Checkpoints(every=every, keep_last=1, keep_best=2, monitor="val/loss")
    run = fit(tmp_path / "run", checkpoint=checkpoints, epochs=4, eval_every=treadle.Every(epochs=1))
    assert run.path is not None
    scores = {entry.step: entry.score for entry in list_checkpoints(run.path / "checkpoints")}
    best = sorted(run.history["val/loss"])[:2]
    assert sorted(score for score in scores.values() if score is not None)[:2] == best


def test_a_cancelled_run_ends_in_a_checkpoint_of_its_last_weights(tmp_path: Path) -> None:
    class Cancel(treadle.Callback):
        def on_after_backward(self, state: treadle.State) -> None:
            if state.current_step == 5:
                raise treadle.CancelFit("enough")

    run = fit(tmp_path / "run", callbacks=[Cancel()])
    assert run.path is not None
    found = newest(run.path / "checkpoints")
    assert found is not None
    assert found.step == run.step == 4
    assert weights_sha256(found.contents["model"]) == run.weights_sha256


def test_commits_are_told(tmp_path: Path) -> None:
    """So that a checkpoint can be copied elsewhere while training goes on."""
    mirror = tmp_path / "mirror"
    checkpoints = treadle.Checkpoints(
        after_save=lambda commit: shutil.copytree(commit.path, mirror / commit.path.name)
    )
    fit(tmp_path / "run", checkpoint=checkpoints)
    assert [path.name for path in sorted(mirror.iterdir())] == [f"step-{step:08d}" for step in (3, 6, 9)]


def test_a_trial_leaves_no_trace_and_finds_what_would_fail_late(tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole")
    assert fit(tmp_path / "tried", trial=True).weights_sha256 == whole.weights_sha256

    class Late(treadle.SupervisedTask):
        def eval_step(self, batch: Any, state: treadle.State) -> None:
            raise KeyError("found at the first evaluation")

    with pytest.raises(KeyError, match="found at the first evaluation"):
        fit(tmp_path / "late", Late, trial=True)
    assert treadle.Run.open(tmp_path / "late").step == 0


def test_an_epoch_can_be_overridden_with_super(tmp_path: Path) -> None:
    said: list[int] = []

    class Own(treadle.Trainer):
        def train_epoch(self, state: treadle.State) -> None:
            super().train_epoch(state)
            said.append(state.progress.epoch)

    trainer = Own(max_epochs=2, run_dir=None, progress=False).replace(max_epochs=3)
    trainer.fit(treadle.SupervisedTask(nn.Linear(4, 3), cross_entropy), (X, Y))
    assert said == [1, 2, 3]


def test_evaluation_that_the_task_cannot_do_is_said_before_training(tmp_path: Path) -> None:
    class StepOnly(treadle.Task):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

        def train_step(self, window: Any, state: treadle.State) -> None: ...

    trainer = treadle.Trainer(max_epochs=1, run_dir=tmp_path / "run", progress=False)
    with pytest.raises(TypeError, match="StepOnly defines neither compute_loss nor eval_step"):
        trainer.fit(StepOnly(), (X, Y), (X, Y))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("event", "error"),
    [
        ("on_eval_batch_start", treadle.CancelBatch),
        ("on_eval_batch_end", treadle.CancelStep),
        ("on_eval_start", treadle.CancelEpoch),
        ("on_eval_end", treadle.CancelEpoch),
        ("on_epoch_end", treadle.CancelEpoch),
        ("on_step_end", treadle.CancelStep),
        ("on_step_end", treadle.CancelBatch),
    ],
)
def test_a_scope_can_be_cancelled_from_any_hook_inside_it(
    event: str, error: type[Exception], tmp_path: Path
) -> None:
    def hook(self: Any, state: treadle.State) -> None:
        raise error

    cancel = type("Cancel", (treadle.Callback,), {event: hook})()
    run = fit(tmp_path / "run", callbacks=[cancel])
    assert (run.status, run.step, run.epoch) == ("finished", 9, 3)
    assert run.weights_sha256 == fit(tmp_path / "plain").weights_sha256
