"""Trained weights into a model: by name, the best, the last, onto any device; and clear words otherwise."""

# ruff: noqa: N802 - the capital letter is the row of the list of results that the test shows

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import treadle
from treadle.checkpoint import CheckpointError, list_checkpoints, read, write
from treadle.loading import load_model

X = torch.linspace(-1, 1, 24).reshape(12, 2)
Y = X.sum(1, keepdim=True)


def make_model(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))


def trained(folder: Path, epochs: int = 3, **options: Any) -> tuple[treadle.Run, nn.Module]:
    model = make_model()
    given: dict[str, Any] = {"progress": False, "seed": 0, "run_dir": folder / "run"} | options
    trainer = treadle.Trainer(max_epochs=epochs, **given)
    # A rate far too high: the best epoch is not the last.
    task = treadle.SupervisedTask(model, mse_loss, torch.optim.SGD, lr=0.3)
    return trainer.fit(task, treadle.Loader((X, Y), 4), (X, Y)), model


def same(one: nn.Module, other: nn.Module | dict[str, Tensor]) -> bool:
    mine, theirs = one.state_dict(), other if isinstance(other, dict) else other.state_dict()
    return all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_B4_the_last_by_run_by_folder_and_by_name(tmp_path: Path) -> None:
    run, model = trained(tmp_path)
    assert run.path is not None
    assert same(load_model(run, make_model(1), "last"), model)
    assert same(load_model(run.path, make_model(1), "last"), model)
    assert same(load_model(str(run.path), make_model(1), "step-00000009"), model)
    assert same(load_model(run.path / "checkpoints" / "step-00000009", make_model(1)), model)
    task = treadle.SupervisedTask(make_model(1), mse_loss)
    assert load_model(run, task, "last") is task
    assert same(task.model, model)


def test_B4_onto_another_device_and_type(tmp_path: Path) -> None:
    run, model = trained(tmp_path)
    loaded = load_model(run, make_model(1).double(), "last")
    assert loaded[0].weight.dtype == torch.float64  # the model's own place and type stay
    assert torch.equal(loaded[0].weight.float(), model[0].weight)  # type: ignore[index, arg-type]


def test_the_best_is_the_one_with_the_best_score(tmp_path: Path) -> None:
    run, _ = trained(tmp_path, epochs=5, checkpoint=treadle.Checkpoints(keep_last=None))
    assert run.path is not None
    scores = {one.score: one.path for one in list_checkpoints(run.path / "checkpoints")}
    losses = run.history["val/loss"]
    assert sorted(scores) == sorted(losses)
    assert min(losses) != losses[-1] != max(losses)
    for mode, best in (("min", min(losses)), ("max", max(losses))):
        weights = {name.removeprefix("model."): value for name, value in read(scores[best])["model"].items()}
        assert same(load_model(run, make_model(1), mode=mode), weights)
    assert same(load_model(run, make_model(1)), load_model(run, make_model(2), mode="min"))


def test_the_record_says_which_way_is_better(tmp_path: Path) -> None:
    highest = treadle.Checkpoints(monitor="val/loss", mode="max", keep_last=None)
    run, _ = trained(tmp_path, epochs=5, checkpoint=highest)
    assert treadle.Run.open(str(run.path)).fields["best_by"] == {"monitor": "val/loss", "mode": "max"}
    assert not same(load_model(run, make_model(1), mode="min"), load_model(run, make_model(1), mode="max"))
    assert same(load_model(str(run.path), make_model(1)), load_model(run, make_model(2), mode="max"))


@pytest.mark.parametrize("averaging", ["ExponentialMovingAverage", "StochasticWeightAveraging"])
def test_averaged_weights_are_those_that_were_evaluated(tmp_path: Path, averaging: str) -> None:
    options: dict[str, Any] = {"decay": 0.5} if averaging == "ExponentialMovingAverage" else {"start": 0}
    average = getattr(treadle.callbacks, averaging)(**options)
    checkpoints = treadle.Checkpoints(keep_last=None)
    run, model = trained(tmp_path, epochs=5, callbacks=[average], checkpoint=checkpoints)
    look = treadle.Trainer(run_dir=None, progress=False)
    for epoch, path in enumerate(run.checkpoints):
        loaded = treadle.SupervisedTask(load_model(path, make_model(1)), mse_loss)
        assert look.evaluate(loaded, (X, Y), "val")["val/loss"] == run.history["val/loss"][epoch]
    assert same(load_model(run, make_model(1), "last"), model)
    assert not same(load_model(run, make_model(1), "last", averages=False), model)


def test_a_score_of_nan_is_not_the_best(tmp_path: Path) -> None:
    run = treadle.Run.create(tmp_path / "run", name="run", config={}, environment={})
    for step, score in ((1, float("nan")), (2, 0.5), (3, float("nan"))):
        weights = make_model(step).state_dict()
        write(tmp_path / "run" / "checkpoints", step, {"model": weights}, score)
    for mode in ("min", "max"):
        assert same(load_model(run, make_model(0), mode=mode), make_model(2))


def test_a_part_of_a_task(tmp_path: Path) -> None:
    task = nn.ModuleDict({"generator": make_model(3), "critic": nn.Linear(2, 1)})
    write(tmp_path, 1, {"model": task.state_dict()})
    loaded = load_model(tmp_path / "step-00000001", make_model(1), part="generator")
    assert same(loaded, make_model(3))


def test_B4_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing"):
        load_model(tmp_path / "nothing", make_model())
    run, _ = trained(tmp_path, checkpoint=None)
    with pytest.raises(ValueError, match="no checkpoint"):
        load_model(run, make_model())
    with pytest.raises(ValueError, match="no checkpoint"):
        load_model(run, make_model(), "last")
    memory, _ = trained(tmp_path, run_dir=None)
    with pytest.raises(ValueError, match="in memory only"):
        load_model(memory, make_model())
    run, _ = trained(tmp_path / "other")
    with pytest.raises(ValueError, match="there are step-00000003, step-00000006, step-00000009"):
        load_model(run, make_model(), "step-00000004")
    with pytest.raises(ValueError, match="allowed are 'min', 'max'"):
        load_model(run, make_model(), mode="most")
    with pytest.raises(ValueError, match=r"of another model(.|\n)*size mismatch"):
        load_model(run, nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)))
    with pytest.raises(ValueError, match=r"of another model(.|\n)*Missing"):
        load_model(run, nn.Linear(2, 1))


def test_without_scores_the_last_is_offered(tmp_path: Path) -> None:
    task = treadle.SupervisedTask(make_model(), mse_loss)
    trainer = treadle.Trainer(max_epochs=1, progress=False, run_dir=tmp_path / "run", seed=0)
    run = trainer.fit(task, (X, Y))
    with pytest.raises(ValueError, match="use 'last'"):
        load_model(run, make_model())


def test_a_damaged_last_checkpoint_is_passed_over_aloud(tmp_path: Path) -> None:
    run, _ = trained(tmp_path)
    assert run.path is not None
    file = run.path / "checkpoints" / "step-00000009" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="skipped"):
        load_model(run, make_model(), "last")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_model(run, make_model(), "step-00000009")


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(20, 8)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.words.weight

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.words(inputs))  # type: ignore[no-any-return]


def test_averages_of_tied_weights_come_back_under_every_name(tmp_path: Path) -> None:
    """The averages have one of the names, the checkpoint both."""
    inputs, targets = torch.arange(40) % 20, torch.arange(40).flip(0) % 20
    average = treadle.callbacks.ExponentialMovingAverage(0.9)
    task = treadle.SupervisedTask(Tied(), nn.functional.cross_entropy, torch.optim.Adam, lr=0.05)
    trainer = treadle.Trainer(
        max_epochs=3, seed=0, run_dir=tmp_path / "run", progress=False, callbacks=[average]
    )
    run = trainer.fit(task, treadle.Loader((inputs, targets), 8), val=(inputs, targets))
    loaded = load_model(run, Tied(), "last")
    loss = float(nn.functional.cross_entropy(loaded(inputs), targets).detach())
    assert loss == pytest.approx(run.history["val/loss"][-1], rel=1e-6)
    assert loaded.head.weight is loaded.words.weight
    raw = load_model(run, Tied(), "last", averages=False)
    assert not torch.equal(raw.head.weight, loaded.head.weight)
