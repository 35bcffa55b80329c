"""Under torchrun, with gloo: one, two and three processes come to the same."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.distributed import scenes
from tests.distributed.launching import FULL, MARKS, torchrun

from treadle.checkpoint import list_checkpoints
from treadle.runs import Run

pytestmark = MARKS
SCENES = Path(__file__).with_name("scenes.py")
AGREEMENT = 1e-5


def launch(ranks: int, scene: str, folder: Path) -> tuple[int, str, float]:
    return torchrun(ranks, SCENES, scene, str(folder))


def results(ranks: int, folder: Path) -> list[dict[str, Any]]:
    code, output, _ = launch(ranks, "same", folder)
    assert code == 0, output[-4000:]
    return [json.loads((folder / f"same-{ranks}-{rank}.json").read_text()) for rank in range(ranks)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("launched")


@pytest.fixture(scope="module")
def one() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(scenes.same()))
    return found


@pytest.fixture(scope="module")
def two(folder: Path) -> list[dict[str, Any]]:
    return results(2, folder)


@pytest.fixture(scope="module")
def three(folder: Path, two: list[dict[str, Any]]) -> list[dict[str, Any]]:
    shutil.copytree(folder / "runs" / "grown", folder / "runs" / "grown-3")
    return results(3, folder)


@pytest.fixture(params=[2, 3] if FULL else [2])
def several(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = request.getfixturevalue({2: "two", 3: "three"}[request.param])
    return found


def distance(one: Any, other: Any) -> float:
    """The largest difference between two trees of numbers; infinite where they are not alike."""
    if isinstance(one, dict):
        same = one.keys() == other.keys()
        return max((distance(one[key], other[key]) for key in one), default=0.0) if same else math.inf
    if isinstance(one, list):
        same = len(one) == len(other)
        return (
            max((distance(a, b) for a, b in zip(one, other, strict=True)), default=0.0) if same else math.inf
        )
    if isinstance(one, str):
        return 0.0 if one == other else math.inf
    return 0.0 if one == other or (one != one and other != other) else abs(one - other)


@pytest.mark.parametrize("strategy", scenes.STRATEGIES)
def test_strategies_agree_with_one_process(
    one: dict[str, Any], several: list[dict[str, Any]], strategy: str
) -> None:
    """Ragged batches, fewer samples than ranks in some, accumulation, clipping, two losses; 20 steps."""
    expected = one["agree/auto"]
    for found in (rank[f"agree/{strategy}"] for rank in several):
        for name in ("weights", "history", "losses", "steps", "predictions", "given"):
            assert distance(expected[name], found[name]) < AGREEMENT, name


def test_the_order_of_samples_is_that_of_one_process(
    one: dict[str, Any], several: list[dict[str, Any]]
) -> None:
    """Joined by rank, the shares of each step are its batches."""

    def by_step(order: list[list[Any]]) -> dict[int, list[float]]:
        steps: dict[int, list[float]] = {}
        for step, seen in order:
            steps[step] = steps.get(step, []) + seen
        return steps

    expected = by_step(one["agree/auto"]["order"])
    shares = [by_step(rank["agree/all_reduce"]["order"]) for rank in several]
    assert len(expected) == 20
    for step, batches in expected.items():
        # With accumulation a rank sees its share of each of the step's batches in turn.
        assert sorted(sample for share in shares for sample in share.get(step, [])) == sorted(batches)
    assert all(len(share.get(1, [])) > 0 for share in shares)


@pytest.mark.parametrize("scene", ["tokens", "adversaries", "kept_gradients", "evaluations"])
def test_scenes_come_out_as_on_one_process(
    one: dict[str, Any], several: list[dict[str, Any]], scene: str
) -> None:
    for rank in several:
        assert distance(one[scene], rank[scene]) < AGREEMENT


def test_rank_0_alone_prints_and_writes(folder: Path, two: list[dict[str, Any]]) -> None:
    assert two[0]["printed"] > 100
    assert two[1]["printed"] == 0
    for run in (folder / "runs").iterdir():
        record = Run.open(run)
        ends = [event.kind for event in record.events if event.kind in ("interrupted", "finished")]
        assert len(ends) == len(set(ends))
        assert len(record.history["train/loss"]) == record.epoch


def test_predictions_go_to_a_file_once_and_all_processes_read_it(
    folder: Path, two: list[dict[str, Any]]
) -> None:
    for rank in two:
        in_memory, from_file, collected = rank["written"]
        assert in_memory == from_file == [[float(number)] for number in range(101)]
        assert collected == in_memory[:31]
    assert (folder / "predictions.npy").is_file()
    assert not list(folder.glob(".*.tmp"))


def test_rank_0_alone_reports_and_logs_and_draws_all_samples(folder: Path, two: list[dict[str, Any]]) -> None:
    assert [rank["shown"] for rank in two] == [2, 2]  # both look at the one record
    run = Run.open(folder / "runs" / "shown")
    png = run.media("picture")[0].data
    assert int.from_bytes(png[16:20], "big") == 11  # its width: every sample once
    assert "finished" in (folder / "runs" / "shown" / "report.html").read_text()
    with open(folder / "runs" / "shown" / "metrics.csv", newline="") as file:
        cells = [(row["step"], row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]]
    assert [float(value) for _, value in cells] == run.history["val/loss"]
    kinds = [
        json.loads(line)["kind"] for line in (folder / "runs/shown/metrics.jsonl").read_text().splitlines()
    ]
    assert (kinds.count("run"), kinds.count("picture"), kinds.count("end")) == (1, 2, 1)


@pytest.mark.parametrize("data", ["table", "stream"])
@pytest.mark.parametrize("strategy", scenes.STRATEGIES)
def test_ranks_with_seven_five_and_no_batches_train_together(
    one: dict[str, Any], three: list[dict[str, Any]], strategy: str, data: str
) -> None:
    """As one process that gets the batches of each step as one; streams are uncounted."""
    assert one["uneven"]["step"] == 14
    for rank in three:
        assert distance(one["uneven"], rank[f"uneven/{strategy}/{data}"]) < AGREEMENT


def test_a_resumed_run_ends_bit_for_bit(two: list[dict[str, Any]]) -> None:
    """Stopped in the middle of an epoch by a SIGTERM to one rank; with dropout and batch normalisation."""
    for rank in two:
        assert rank["cut/stopped"] == [75, 8, "SIGTERM received on rank 1"]
        assert rank["cut"]["sha"] == rank["whole"]["sha"]
        assert rank["cut"]["history"] == rank["whole"]["history"]
        assert rank["cut"]["order"] == rank["whole"]["order"][8:]
    assert two[0]["whole"]["status"] == two[0]["cut"]["status"] == "finished"


def test_another_strategy_or_number_of_ranks_may_go_on(
    folder: Path, two: list[dict[str, Any]], three: list[dict[str, Any]]
) -> None:
    expected = two[0]["plain/all_reduce"]
    shutil.copytree(folder / "runs" / "grown", folder / "runs" / "grown-1")
    alone = scenes.train(str(folder / "runs" / "grown-1"), "plain")
    ends = [two[0]["plain/ddp"], two[0]["plain/fsdp2"], alone, three[0]["grown"]]
    for end in ends:
        assert end["status"] == "finished"
        for name in ("weights", "history"):
            assert distance(expected[name], end[name]) < AGREEMENT


@pytest.mark.parametrize(
    ("scene", "cause"),
    [
        (
            "error",
            r"the very first cause\s+treadle: raised on rank 1 in step 8, batch 2 of epoch 1\s+=+",
        ),
        ("SIGKILL", r"exitcode +: -9 [^=]*treadle: died on rank 1 in step 8, batch 2 of epoch 1\s+=+"),
    ],
)
def test_what_ends_one_rank_ends_all(tmp_path: Path, scene: str, cause: str) -> None:
    code, output, ended = launch(2, scene, tmp_path)
    assert code != 0
    began = re.search(r"trouble at ([\d.]+)", output)
    assert began is not None, output[-4000:]
    assert ended - float(began[1]) < 10
    assert re.search(cause + r"\s*$", output), output[-4000:]
    if scene == "error":
        assert Run.open(tmp_path / scene).status == "failed"


def test_sigterm_to_one_rank_saves_all_and_leaves_with_75(tmp_path: Path) -> None:
    code, output, _ = launch(2, "SIGTERM", tmp_path)
    assert code != 0
    assert re.findall(r"exitcode +: (\S+)", output) == ["75", "75"], output[-4000:]
    run = Run.open(tmp_path / "SIGTERM")
    assert (run.status, run.step) == ("interrupted", 8)
    assert list_checkpoints(tmp_path / "SIGTERM" / "checkpoints")[-1].step == 8
