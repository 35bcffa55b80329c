"""FSDP2's options come to the same weights; its checkpoints load anywhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
from tests.distributed import sharding
from tests.distributed.launching import MARKS, ONLY_FULL, torchrun
from tests.distributed.scenes import vector, whole

from treadle.checkpoint import CheckpointError, list_checkpoints, read, rewind
from treadle.cli.main import main
from treadle.loading import load_model

pytestmark = [*MARKS, ONLY_FULL]
PROGRAM = Path(__file__).with_name("sharding.py")
AGREEMENT = 1e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sharding")


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[dict[str, Any]]:
    code, output, _ = torchrun(2, PROGRAM, str(folder))
    assert code == 0, output[-4000:]
    return [json.loads((folder / f"sharding-2-{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def one() -> list[float]:
    trainer, task, _ = sharding.train("single")
    return whole(task, trainer)


def distance(one: list[float], other: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("variant", ["plain", "wrapped", "offloaded", "recomputed", "kept", "whole", "part"])
def test_options_change_no_weight(one: list[float], ranks: list[dict[str, Any]], variant: str) -> None:
    """With clipping and accumulation; "part" was stopped after three steps, and went on from shards."""
    for rank in ranks:
        assert distance(one, rank[variant]["weights"]) < AGREEMENT
        assert rank[variant]["sha"] == rank["plain"]["sha"]


def test_every_process_has_its_rows_only(ranks: list[dict[str, Any]]) -> None:
    assert [rank["wrapped"]["rows"] for rank in ranks] == [4, 3]


def test_parameters_are_gathered_in_the_type_of_the_policy(
    one: list[float], ranks: list[dict[str, Any]]
) -> None:
    assert 1e-4 < distance(one, ranks[0]["bf16"]["weights"]) < 0.1


def test_recomputing_runs_blocks_again(ranks: list[dict[str, Any]]) -> None:
    """Twice for each micro-batch with samples in it; and evaluation recomputes nothing."""
    once, twice = ranks[0]["wrapped"]["calls"], ranks[0]["recomputed"]["calls"]
    assert once < twice <= 2 * once


def test_gradients_are_reduced_once_a_step(ranks: list[dict[str, Any]]) -> None:
    """Four micro-batches: once for each of the four groups; gathered anew only where they are let go."""
    groups = sharding.LAYERS + 1
    again = sharding.ACCUMULATE * (groups + sharding.LAYERS)
    for rank in ranks:
        assert rank["collectives"] == {"gather": again, "scatter": groups}
        assert rank["collectives kept"] == {"gather": groups, "scatter": groups}


def cut(folder: Path, name: str) -> Path:
    """A copy of the run that was stopped after three steps, as it was then."""
    copy = folder / name
    shutil.copytree(folder / "part", copy)
    rewind(copy / "checkpoints", 3)
    return copy


def test_one_process_goes_on_from_shards(one: list[float], ranks: list[dict[str, Any]], folder: Path) -> None:
    trainer, task, _ = sharding.train("single", str(cut(folder, "to-1")))
    assert distance(one, whole(task, trainer)) < AGREEMENT


@pytest.mark.parametrize("count", [3, 4])
def test_other_numbers_of_processes_go_on_from_shards(
    one: list[float], ranks: list[dict[str, Any]], folder: Path, count: int
) -> None:
    """Four have more processes than some tensors have rows."""
    cut(folder, f"to-{count}")
    code, output, _ = torchrun(count, PROGRAM, str(folder))
    assert code == 0, output[-4000:]
    for rank in range(count):
        found = json.loads((folder / f"sharding-{count}-{rank}.json").read_text())
        assert distance(one, found["weights"]) < AGREEMENT


def test_a_plain_model_and_one_file_have_the_same_weights(
    ranks: list[dict[str, Any]], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = cut(folder, "plain")
    model = load_model(run, sharding.Network(), "last")
    assert vector(model.state_dict()) == ranks[0]["at 3"]["weights"]
    assert main(["export", str(run)]) == 0
    assert "step-00000003" in capsys.readouterr().out
    state = safetensors.torch.load_file(run / "model.safetensors")
    assert all((state[name] == value).all() for name, value in model.state_dict().items())


def test_a_damaged_or_missing_shard_is_found(ranks: list[dict[str, Any]], folder: Path) -> None:
    path = list_checkpoints(cut(folder, "damaged") / "checkpoints")[-1].path
    shard = path / "model.shard-2-of-2.safetensors"
    sound = shard.read_bytes()
    read(path)
    shard.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=r"model\.shard-2-of-2\.safetensors: its SHA-256"):
        read(path)
    shard.unlink()
    with pytest.raises(CheckpointError, match=r"model\.shard-2-of-2\.safetensors: missing"):
        read(path)
