"""A result that checkpoints are to be kept by, and that never comes, is said at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from torch import nn
from torch.nn.functional import cross_entropy

import treadle

Fit = Callable[..., Any]


class Seen(treadle.Callback):
    def __init__(self) -> None:
        self.steps = 0

    def on_step_end(self, state: treadle.State) -> None:
        self.steps = state.progress.step


@pytest.mark.parametrize(
    ("monitor", "known"),
    [
        ("val/acuracy", "train/accuracy, train/loss, val/accuracy, val/loss"),
        ("vall/accuracy", "learning_rate, train/accuracy, train/loss, val/accuracy, val/loss"),
        ("accuracy", "val/accuracy"),
        ("train/los", "train/loss"),
    ],
)
def test_a_name_with_a_typo_ends_the_run_at_the_first_evaluation(fit: Fit, monitor: str, known: str) -> None:
    seen = Seen()
    said = f"Checkpoints watches '{re.escape(monitor)}', which is no result of this run. Known results: "
    with pytest.raises(ValueError, match=f"{said}.*{known}"):
        fit([seen], checkpoint=treadle.Checkpoints(monitor=monitor))
    assert seen.steps == 4  # the first epoch


def test_a_result_of_data_that_are_not_there_is_refused_before_training(fit: Fit) -> None:
    seen = Seen()
    with pytest.raises(ValueError, match="Checkpoints watches 'val/loss', and nothing is evaluated"):
        fit([seen], val=None, checkpoint=treadle.Checkpoints(monitor="val/loss"))
    assert seen.steps == 0
    fit(val=None, checkpoint=treadle.Checkpoints())  # nobody has asked for it


@pytest.mark.parametrize("monitor", ["", 3])
def test_a_name_is_a_text(monitor: Any) -> None:
    with pytest.raises(TypeError, match="Checkpoints: monitor is"):
        treadle.Checkpoints(monitor=monitor)


def test_the_default_is_no_demand(fit: Fit) -> None:
    class Quiet(treadle.SupervisedTask):
        def eval_step(self, batch: Any, state: treadle.State) -> None:
            state.log("error", 1.0)

    task = Quiet(nn.Linear(5, 3), cross_entropy, lr=0.1)
    run = fit(task=task, folder="run").run
    assert "val/error" in run.history
    assert run.fields["best_by"] == {"monitor": "val/loss", "mode": "min"}
