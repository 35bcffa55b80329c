"""Every run records what it is made of."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.short_runs import X, Y, fit
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import treadle
from treadle.cli.main import main
from treadle.report import render
from treadle.runs.compare import compare


def test_a_run_says_what_it_is_made_of_without_being_asked(tmp_path: Path) -> None:
    stopping = treadle.callbacks.EarlyStopping("val/loss", patience=90)
    run = fit(
        tmp_path / "run",
        optimizer=partial(torch.optim.AdamW, betas=(0.8, 0.99), weight_decay=0.05),
        lr=0.01,
        scheduler=treadle.schedules.CosineDecay(warmup=0.25),
        loss=nn.CrossEntropyLoss(label_smoothing=0.125),
        accumulate=2,
        clip_norm=1.5,
        callbacks=[stopping],
    )
    setup = treadle.Run.open(run.path or "").setup
    assert setup == run.setup
    trainer = setup["trainer"]
    assert (trainer["max_epochs"], trainer["max_steps"], trainer["accumulate"]) == (None, 7, 2)
    assert (trainer["clip_norm"], trainer["clip_value"], trainer["precision"]) == (1.5, None, "fp32")
    assert (trainer["strategy"], trainer["processes"]) == ("treadle.strategy.Strategy", 1)
    assert (trainer["eval_every"]["epochs"], trainer["callbacks"]) == (1, ["EarlyStopping(val/loss)"])
    task = setup["task"]
    assert task["class"] == "treadle.supervised_task.SupervisedTask"
    assert task["modules"]["model"] == "torch.nn.modules.container.Sequential"
    assert task["parameters"] == task["trained"] == 3 * 4 + 4 + 4 * 2 + 2
    assert task["loss"]["class"] == "torch.nn.modules.loss.CrossEntropyLoss"
    assert task["loss"]["label_smoothing"] == 0.125
    assert task["metrics"]["accuracy"]["class"] == "treadle.metrics.classification.Accuracy"
    optimizer = setup["optimizers"]["optimizer"]
    assert optimizer["class"] == "torch.optim.adamw.AdamW"
    (group,) = optimizer["groups"]
    assert (group["lr"], group["betas"], group["weight_decay"]) == (0.01, [0.8, 0.99], 0.05)
    schedule = setup["schedules"]["optimizer"]
    assert schedule["curve"] == "treadle.schedules.cosine.CosineDecay"
    assert schedule["warmup"]["of_run"] == 0.25
    train, val = setup["data"]["train"], setup["data"]["val"]
    assert (train["class"], train["samples"], train["batch_size"]) == ("treadle.data.loader.Loader", 40, 8)
    assert (train["shuffle"], train["drop_last"]) == (True, False)
    assert (val["samples"], val["batch_size"], val["shuffle"]) == (40, 256, False)
    assert run.config == {}  # the user's own stays apart
    assert json.loads((tmp_path / "run" / "run.json").read_text())["setup"] == setup


def test_several_optimizers_and_a_plain_dataloader(tmp_path: Path) -> None:
    class Two(treadle.Task):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other, self.margin = nn.Linear(3, 2), nn.Linear(2, 2), 0.5

        def configure_optimizers(self) -> dict[str, torch.optim.Optimizer]:
            groups = [{"params": [p], "lr": 0.1 * n} for n, p in enumerate(self.one.parameters(), 1)]
            return {
                "first": torch.optim.SGD(groups, momentum=0.5),
                "second": torch.optim.Adam(self.other.parameters(), 3e-3),
            }

        def compute_loss(self, batch: Any, state: treadle.State) -> torch.Tensor:
            return cross_entropy(self.other(self.one(batch[0])), batch[1])

    loader = DataLoader(TensorDataset(X, Y), batch_size=10, shuffle=True, drop_last=True)
    setup = fit(None, task=Two(), train=loader, val=None).setup
    first, second = setup["optimizers"]["first"], setup["optimizers"]["second"]
    assert [group["lr"] for group in first["groups"]] == [0.1, 0.2]
    assert [group["momentum"] for group in first["groups"]] == [0.5, 0.5]
    assert (second["class"], second["groups"][0]["lr"]) == ("torch.optim.adam.Adam", 3e-3)
    assert setup["task"]["settings"] == {"margin": 0.5}
    assert setup["task"]["modules"] == dict.fromkeys(("one", "other"), "torch.nn.modules.linear.Linear")
    train = setup["data"]["train"]
    assert train["class"] == "torch.utils.data.dataloader.DataLoader"
    assert (train["samples"], train["batch_size"], train["drop_last"]) == (40, 10, True)
    assert train["sampler"] == "torch.utils.data.sampler.RandomSampler"


PROGRAM = """
import functools, json, sys, torch, treadle
from torch import nn
from torch.nn.functional import cross_entropy

class Loss:
    def __init__(self):
        self.inner, self.place, self.table = nn.MSELoss(), sys.argv[1], torch.zeros(2, 3)
    def __call__(self, output, target):
        return cross_entropy(output, target)

class Callable:
    def __call__(self, state):
        pass

trainer = treadle.Trainer(max_steps=2, run_dir=sys.argv[1], progress=False, seed=0)
trainer.on("step_end")(Callable())
trainer.on("step_end")(functools.partial(lambda state, more: None, more=1))
trainer.on("step_end")(lambda state: None)
task = treadle.SupervisedTask(
    nn.Linear(3, 2),
    Loss(),
    scheduler=functools.partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda epoch: 1),
    metrics={"own": lambda output, target: 0.0},
)
collate = functools.partial(torch.utils.data.default_collate)
train = treadle.Loader([(torch.zeros(3), 1)] * 4, 2, transform=lambda sample: sample, collate=collate)
print(json.dumps(trainer.fit(task, train).setup))
"""


def test_equal_programs_record_the_same_in_any_place_and_process(tmp_path: Path) -> None:
    said = []
    for number in (1, 2):
        place = tmp_path / f"place-{number}"
        (tmp_path / "program.py").write_text(PROGRAM)
        command = [sys.executable, str(tmp_path / "program.py"), str(place)]
        said.append(subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout)
    last = [text.strip().splitlines()[-1] for text in said]
    setup = json.loads(last[0][last[0].index("{") :])
    assert last[0] == last[1]
    assert str(tmp_path) not in last[0]
    assert "0x" not in last[0]
    assert setup["trainer"]["callbacks"] == ["Callable", "partial", "<lambda>"]
    assert setup["task"]["loss"]["class"] == "__main__.Loss"


def test_two_runs_are_compared_by_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = fit(tmp_path / "one", max_steps=2)
    other = fit(
        tmp_path / "other", max_steps=2, optimizer=torch.optim.Adam, lr=0.02, batch_size=4, accumulate=3
    )
    found = compare(one, other).setup
    assert found["optimizers.optimizer.class"] == ("torch.optim.sgd.SGD", "torch.optim.adam.Adam")
    assert found["optimizers.optimizer.groups[0].lr"] == (0.1, 0.02)
    assert found["data.train.batch_size"] == (8, 4)
    assert found["trainer.accumulate"] == (1, 3)
    assert "data.train.samples" not in found
    assert compare(one, fit(tmp_path / "again", max_steps=2)).setup == {}
    assert main(["diff", str(one.path), str(other.path)]) == 1
    shown = capsys.readouterr().out
    assert "optimizers.optimizer.groups[0].lr" in shown
    assert "data.train.batch_size" in shown
    text = render([one, other])
    assert "setup.optimizers.optimizer.groups[0].lr" in text
    main(["runs", str(tmp_path)])
    assert {"SGD 0.1", "Adam 0.02"} <= set(re.findall(r"\w+ 0\.\d+", capsys.readouterr().out))
    main(["runs", str(tmp_path), "--json"])
    assert '"batch_size": 4' in capsys.readouterr().out


def test_a_run_from_before_compares_as_if_nothing_were_known(tmp_path: Path) -> None:
    run, other = fit(tmp_path / "one", max_steps=2), fit(tmp_path / "other", max_steps=2, lr=0.3)
    assert run.path is not None
    fields = json.loads((run.path / "run.json").read_text())
    del fields["setup"]
    (run.path / "run.json").write_text(json.dumps(fields))
    assert treadle.Run.open(run.path).setup == {}
    assert compare(treadle.Run.open(run.path), other).setup == {}


def test_what_cannot_be_recorded_of_a_users_own_configuration_is_said(tmp_path: Path) -> None:
    with pytest.raises(treadle.runs.RunError, match=r"config\['model'\].*Linear.* cannot be recorded"):
        fit(tmp_path / "run", config={"model": nn.Linear})
    assert not (tmp_path / "run").exists()
