"""Layers cut over two processes, alone and with data parallelism over pairs: the same as one process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.distributed import tensors
from tests.distributed.launching import FULL, MARKS, ONLY_FULL, torchrun
from tests.distributed.test_launched import distance
from torch.distributed.tensor.parallel import ColwiseParallel

import treadle
from treadle.checkpoint import list_checkpoints, read

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


@pytest.mark.parametrize("variant", ["plain", "blocks"] if FULL else ["plain"])
def test_as_on_one_process(one: dict[str, Any], ranks: list[dict[str, Any]], variant: str) -> None:
    """Twenty steps over ragged batches, with accumulation, clipping, and items that are tokens."""
    for rank in ranks:
        for name in ("weights", "history", "losses", "evaluated", "predicted"):
            assert distance(one[name], rank[variant][name]) < AGREEMENT, name


def test_each_process_has_its_part_of_a_layer(one: dict[str, Any], ranks: list[dict[str, Any]]) -> None:
    elements = [rank["plain"]["elements"] for rank in ranks]
    assert sum(elements) == one["elements"]
    assert max(elements) < one["elements"]


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


def test_it_goes_on_from_one_process(one: dict[str, Any], ranks: list[dict[str, Any]]) -> None:
    for rank in ranks[: 2 if len(ranks) == 2 else 0]:
        for name in ("weights", "history", "losses"):
            assert distance(one[name], rank["taken over"][name]) < AGREEMENT, name


@ONLY_FULL
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            "name",
            r"plan names 'model.layers.\*', and Tokens has no such module; it has 'model', 'model.enter'",
        ),
        ("shape", "model.enter.weight has the shape (7, 6), and its dimension of 7 cannot be cut into 2"),
        ("size", "size is 3, which does not divide the 2 processes"),
    ],
)
def test_a_wrong_plan_is_said_before_anything_is_trained(tmp_path: Path, wrong: str, message: str) -> None:
    code, output, _ = torchrun(2, PROGRAM, str(tmp_path), wrong)
    assert code == 1
    assert message.replace("\\", "") in output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("plan", "size", "options", "error", "message"),
    [
        ({}, 2, {}, ValueError, "plan is {}"),
        ({"model": "columns"}, 2, {}, TypeError, r"plan\['model'\] is 'columns'"),
        ({"model": ColwiseParallel()}, 1, {}, ValueError, "size is 1"),
        ({"model": ColwiseParallel()}, 2, {"sharded_checkpoints": True}, ValueError, "checkpoints are whole"),
    ],
)
def test_arguments_are_checked(
    plan: Any, size: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        treadle.TensorParallel(plan, size, **options)
