"""Averages of weights that several processes hold shards of are those of one process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.distributed import averaging
from tests.distributed.launching import MARKS, ONLY_FULL, torchrun
from tests.distributed.scenes import vector
from tests.distributed.tensors import Network
from tests.distributed.test_launched import distance

import treadle
from treadle.checkpoint import rewind

pytestmark = [*MARKS, ONLY_FULL]
AGREEMENT = 1e-5
KINDS = list(averaging.AVERAGES)
NAMES = list(averaging.strategies())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("averaging")


@pytest.fixture(scope="module")
def one(folder: Path) -> dict[str, Any]:
    return {kind: averaging.train("single", kind, f"{folder}/one-{kind}") for kind in averaging.KEEPING}


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[dict[str, Any]]:
    code, output, _ = torchrun(2, Path(averaging.__file__), str(folder))
    assert code == 0, output[-4000:]
    return [json.loads((folder / f"averaging-{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strategy", NAMES)
def test_averages_are_those_of_one_process(
    one: dict[str, Any], ranks: list[dict[str, Any]], folder: Path, strategy: str, kind: str
) -> None:
    """Evaluated, left in the task, and saved; tried before the run, which was stopped and gone on with."""
    for rank in ranks:
        found = rank[f"{strategy}-{kind}"]
        assert distance(one[kind]["weights"], found["weights"]) < AGREEMENT
        assert distance(one[kind]["history"], found["history"]) < AGREEMENT
    for averages in (True, False):
        models = [
            treadle.load_model(f"{folder}/{name}-{kind}", Network(), "last", averages=averages)
            for name in ("one", strategy)
        ]
        assert distance(*(vector(model.state_dict()) for model in models)) < AGREEMENT
    assert (
        distance(
            vector(treadle.load_model(f"{folder}/{strategy}-{kind}", Network(), "last").state_dict()),
            one[kind]["weights"],
        )
        < AGREEMENT
    )


@pytest.mark.parametrize("strategy", NAMES)
def test_the_best_weights_are_those_of_one_process(
    one: dict[str, Any], ranks: list[dict[str, Any]], folder: Path, strategy: str
) -> None:
    """Kept in shards, saved, found again by the part that goes on, and put in at its end."""
    for rank in ranks:
        assert distance(one["best"]["weights"], rank[f"{strategy}-best"]["weights"]) < AGREEMENT
    last = treadle.load_model(f"{folder}/{strategy}-best", Network(), "last")
    assert distance(vector(last.state_dict()), one["best"]["weights"]) > 100 * AGREEMENT
    classes = treadle.Run.open(f"{folder}/{strategy}-best").setup["task"]["modules"]
    assert classes == treadle.Run.open(f"{folder}/one-best").setup["task"]["modules"]


@pytest.mark.parametrize("strategy", ["shards", "tensors"])
def test_one_process_goes_on_with_them(
    one: dict[str, Any], ranks: list[dict[str, Any]], folder: Path, strategy: str
) -> None:
    kind = "exponential"
    run = shutil.copytree(folder / f"{strategy}-{kind}", folder / f"{strategy}-alone")
    rewind(run / "checkpoints", averaging.STOP)
    found = averaging.train("single", kind, str(run))
    assert distance(one[kind]["weights"], found["weights"]) < AGREEMENT
