"""Layers cut over two processes, alone and with data parallelism over pairs: the same as one process."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.distributed import tensors
from tests.distributed.launching import FULL, MARKS, ONLY_FULL, bounded, torchrun
from tests.distributed.test_launched import distance
from torch.distributed.tensor.parallel import ColwiseParallel

import treadle
from treadle.checkpoint import list_checkpoints, read, rewind
from treadle.cli.main import main

pytestmark = MARKS
PROGRAM = Path(__file__).with_name("tensors.py")
AGREEMENT = 1e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tensors")


@pytest.fixture(scope="module")
def one(folder: Path) -> dict[str, Any]:
    tensors.train("single", str(folder / "one"), tensors.STOP)
    return tensors.result(*tensors.train("single"))


@pytest.fixture(
    scope="module", params=[2, pytest.param(4, marks=pytest.mark.skipif(not FULL, reason="full"))]
)
def ranks(request: pytest.FixtureRequest, folder: Path, one: dict[str, Any]) -> list[dict[str, Any]]:
    count = request.param
    code, output, _ = torchrun(count, PROGRAM, str(folder))
    assert code == 0, output[-4000:]
    assert "sequential all_gather" not in output
    return [json.loads((folder / f"tensors-{count}-{rank}.json").read_text()) for rank in range(count)]


@ONLY_FULL
@pytest.mark.parametrize("variant", ["plain", "blocks"])
def test_as_on_one_process(one: dict[str, Any], ranks: list[dict[str, Any]], variant: str) -> None:
    """Twenty steps over ragged batches, with accumulation, clipping, and items that are tokens."""
    for rank in ranks:
        for name in ("weights", "history", "losses", "evaluated", "predicted"):
            assert distance(one[name], rank[variant][name]) < AGREEMENT, name


@ONLY_FULL
def test_each_process_has_its_part_of_a_layer(one: dict[str, Any], ranks: list[dict[str, Any]]) -> None:
    elements = [rank["plain"]["elements"] for rank in ranks]
    assert sum(elements) == one["elements"]
    assert max(elements) < one["elements"]


@ONLY_FULL
def test_one_process_goes_on_from_its_checkpoint(
    one: dict[str, Any], ranks: list[dict[str, Any]], folder: Path
) -> None:
    """It has whole tensors under plain names, and each share's counts once."""
    run = shutil.copytree(folder / f"cut-{len(ranks)}", folder / f"alone-{len(ranks)}")
    contents = read(list_checkpoints(run / "checkpoints")[-1].path)
    assert contents["model"]["model.blocks.0.up.weight"].shape == (10, 7)
    assert len(contents["ranks"]) == len(ranks) // 2 - 1
    trainer, task, record = tensors.train("single", str(run))
    found = tensors.result(trainer, task, record)
    for name in ("weights", "history", "losses", "predicted"):
        assert distance(one[name], found[name]) < AGREEMENT, name


@ONLY_FULL
def test_it_goes_on_from_one_process(one: dict[str, Any], ranks: list[dict[str, Any]]) -> None:
    for rank in ranks[: 2 if len(ranks) == 2 else 0]:
        for name in ("weights", "history", "losses"):
            assert distance(one[name], rank["taken over"][name]) < AGREEMENT, name


@ONLY_FULL
@pytest.mark.parametrize("ranks", [4], indirect=True)
def test_two_groups_of_two_have_a_copy_of_the_model_each(
    one: dict[str, Any], ranks: list[dict[str, Any]], folder: Path
) -> None:
    """Hybrid sharding; one of the groups writes the shards, from which one process goes on too."""
    for rank in ranks:
        assert rank["hybrid"]["elements"] == one["elements"] // 2
        for variant in ("hybrid", "hybrid gone on"):
            for name in ("weights", "history", "losses", "predicted"):
                assert distance(one[name], rank[variant][name]) < AGREEMENT, name
    run = shutil.copytree(folder / "hybrid", folder / "hybrid-alone")
    rewind(run / "checkpoints", tensors.STOP)
    found = tensors.result(*tensors.train("single", str(run)))
    assert distance(one["weights"], found["weights"]) < AGREEMENT


@ONLY_FULL
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            "name",
            r"plan names 'model.layers.\*', and Tokens has no such module; it has 'model', 'model.enter'",
        ),
        ("shape", "model.enter.weight has the shape (7, 6), and its dimension of 7 cannot be cut into 2"),
        ("copies", "shard_size is 3, which does not divide the number of processes, 2"),
        ("size", "size is 3, which does not divide the 2 processes"),
    ],
)
def test_a_wrong_plan_is_said_before_anything_is_trained(tmp_path: Path, wrong: str, message: str) -> None:
    code, output, _ = torchrun(2, PROGRAM, str(tmp_path), wrong)
    assert code == 1
    assert message.replace("\\", "") in output
    assert not list(tmp_path.iterdir())


CONFIG = """
seed: 1
task:
  class_path: treadle.SupervisedTask
  init_args:
    model:
      class_path: torch.nn.Sequential
      args:
        - {class_path: torch.nn.Linear, init_args: {in_features: 64, out_features: 32}}
        - {class_path: torch.nn.ReLU}
        - {class_path: torch.nn.Linear, init_args: {in_features: 32, out_features: 10}}
    loss: torch.nn.functional.cross_entropy
    lr: 1e-2
data:
  train:
    class_path: treadle.Loader
    init_args: {dataset: {class_path: treadle.data.Digits}, batch_size: 128, shuffle: true}
trainer:
  max_epochs: 2
  run_dir: runs/two
  progress: false
  strategy:
    class_path: treadle.TensorParallel
    init_args:
      size: 2
      plan:
        model.0: {class_path: torch.distributed.tensor.parallel.ColwiseParallel}
        model.2: {class_path: torch.distributed.tensor.parallel.RowwiseParallel}
"""


@ONLY_FULL
def test_from_a_configuration_and_on_with_another_strategy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("two.yaml").write_text(CONFIG)
    command = [sys.executable, "-m", "treadle.cli", "fit", "two.yaml", "--devices", "2"]
    code, output, _ = bounded(command)
    assert code == 0, output
    alone = ["--set", "trainer.strategy=single"]
    assert main(["fit", "two.yaml", "--run-dir", "runs/one", *alone]) == 0
    for longer in ([], ["--set", "trainer.max_epochs=3"]):
        if longer:
            for run in ("one", "two"):
                assert main(["resume", f"runs/{run}", *longer, *alone]) == 0
        capsys.readouterr()
        losses = []
        for run in ("one", "two"):
            assert main(["evaluate", f"runs/{run}", "--data", "train", "--json"]) == 0
            losses.append(json.loads(capsys.readouterr().out)["results"]["train/loss"])
        assert losses[0] == pytest.approx(losses[1], abs=AGREEMENT)


@pytest.mark.parametrize(
    ("plan", "size", "options", "error", "message"),
    [
        ({}, 2, {}, ValueError, "plan is {}"),
        ({"model": "columns"}, 2, {}, TypeError, r"plan\['model'\] is 'columns'"),
        ({"model": ColwiseParallel()}, 1, {}, ValueError, "size is 1"),
        ({"model": ColwiseParallel()}, 2, {"sharded_checkpoints": True}, ValueError, "checkpoints are whole"),
        ({"model": ColwiseParallel()}, 2, {"shard_size": 2}, ValueError, "shard_size is given"),
    ],
)
def test_arguments_are_checked(
    plan: Any, size: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        treadle.TensorParallel(plan, size, **options)
