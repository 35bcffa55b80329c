"""A recorded step can be run again, and two runs can be held against each other."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import treadle
from treadle.callbacks import Fingerprints
from treadle.cli.main import main
from treadle.replaying import replay
from treadle.runs import compare

X, Y = torch.randn(26, 5, generator=torch.Generator().manual_seed(2)), torch.arange(26) % 3


def parts(folder: Path | None, seed: int = 3, lr: float = 0.1, **options: Any) -> tuple[Any, Any, Any, Any]:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.3), nn.Linear(8, 3))
    schedule = treadle.Schedule(partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=12), every="step")
    task = treadle.SupervisedTask(model, cross_entropy, torch.optim.Adam, lr=lr, scheduler=schedule)
    trainer = treadle.Trainer(
        max_epochs=3,
        accumulate=2,
        seed=seed,
        run_dir=folder,
        checkpoint=treadle.Checkpoints(every=treadle.Every(epochs=1), keep_last=None),
        callbacks=[Fingerprints()],
        progress=False,
        **options,
    )
    return trainer, task, treadle.Loader((X, Y), 4, shuffle=True), (X, Y)


def train(folder: Path, **options: Any) -> treadle.Run:
    trainer, task, data, val = parts(folder, **options)
    return trainer.fit(task, data, val)


@pytest.mark.parametrize("step", [1, 4, 5, 7, 12])
def test_a_replayed_step_is_the_recorded_one(tmp_path: Path, step: int) -> None:
    run = train(tmp_path / "run")
    before = run.series("train/loss").values.tolist()
    seen: list[int] = []
    trainer, task, data, val = parts(None)
    result = replay(
        trainer, task, data, val, run=tmp_path / "run", step=step, watch=lambda s: seen.append(s.current_step)
    )
    assert seen == [step]
    assert result.differing == []
    assert result.values == result.recorded
    assert {"train/loss", "fingerprint/weights", "fingerprint/order"} <= set(result.recorded)
    batches = data.open(3)
    first = 2 * ((step - 1) % 4)
    expected = [batches.indices((step - 1) // 4, b).tolist() for b in range(first, min(first + 2, 7))]
    assert result.batches == expected
    assert set(result.gradient_norms) == {name for name, _ in task.named_parameters()}
    assert (result.checkpoint is None) == (step <= 4)
    assert treadle.Run.open(tmp_path / "run").series("train/loss").values.tolist() == before


def test_a_step_the_run_does_not_have(tmp_path: Path) -> None:
    train(tmp_path / "run")
    trainer, task, data, val = parts(None)
    with pytest.raises(ValueError, match="step is 13; the run has steps 1 to 12"):
        replay(trainer, task, data, val, run=tmp_path / "run", step=13)


def test_the_same_run_twice(tmp_path: Path) -> None:
    found = compare(train(tmp_path / "a"), train(tmp_path / "b"))
    assert found.same
    assert found.parting is None
    assert "train/loss" in found.compared


def test_where_runs_part_and_what_differed_first(tmp_path: Path) -> None:
    base = train(tmp_path / "base")
    order = compare(base, train(tmp_path / "seed", seed=4))
    assert order.parting is not None
    assert (order.parting.step, order.parting.name) == (1, "fingerprint/order")
    assert order.environment["seed"] == (3, 4)

    rate = compare(base, train(tmp_path / "rate", lr=0.1000001))
    assert rate.parting is not None
    assert (rate.parting.step, rate.parting.name) == (1, "fingerprint/weights")  # loss and gradient are equal

    clipped = compare(base, train(tmp_path / "clip", clip_value=0.3))
    assert clipped.parting is not None
    assert clipped.parting.name == "fingerprint/weights"

    class Nudge(treadle.Callback):
        def on_after_backward(self, state: treadle.State) -> None:
            if state.current_step == 7:
                state.task.model[0].weight.grad[0, 0] += 1e-4

    trainer, task, data, val = parts(tmp_path / "nudged")
    trainer.callbacks.insert(0, Nudge())
    nudged = compare(base, trainer.fit(task, data, val))
    assert nudged.parting is not None
    assert (nudged.parting.step, nudged.parting.name) == (7, "fingerprint/gradient")
    assert not nudged.same


def test_fingerprints_are_in_no_average(tmp_path: Path) -> None:
    run = train(tmp_path / "run")
    assert not [name for name in run.history if name.startswith("fingerprint")]


CONFIG = """
seed: 1
task:
  class_path: treadle.SupervisedTask
  init_args:
    model: {class_path: torch.nn.Linear, init_args: {in_features: 64, out_features: 10}}
    loss: torch.nn.functional.cross_entropy
    lr: 0.01
data:
  train:
    class_path: treadle.Loader
    init_args: {dataset: {class_path: treadle.data.Digits}, batch_size: 500, shuffle: true}
trainer: {max_epochs: 3, progress: false, callbacks: [{class_path: treadle.callbacks.Fingerprints}]}
"""


def test_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(CONFIG)
    assert main(["fit", "c.yaml", "--run-dir", "a"]) == 0
    assert main(["fit", "c.yaml", "--run-dir", "b"]) == 0
    assert main(["fit", "c.yaml", "--run-dir", "c", "--set", "task.init_args.lr=0.02"]) == 0
    capsys.readouterr()
    assert main(["replay", "a", "--step", "5", "-o", "step.json"]) == 0
    said = "".join(capsys.readouterr())
    assert "replayed from a/checkpoints/step-00000003" in said
    assert "weights_sha256" in said
    assert json.loads((tmp_path / "step.json").read_text())["differing"] == []
    assert main(["replay", "a", "--step", "99"]) != 0
    capsys.readouterr()
    assert main(["diff", "a", "b"]) == 0
    assert "the same" in capsys.readouterr().out
    assert main(["diff", "a", "c"]) == 1
    said = capsys.readouterr().out
    assert "task.init_args.lr" in said
    assert "they part at step 1: fingerprint/weights" in said
