"""Values as CSV, everything as lines of JSON."""

from __future__ import annotations

import csv
import json
import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.loggers.training import MEDIA, cut_and_resumed, expected, train

import treadle
from treadle.loggers import CSVLogger, JSONLinesLogger
from treadle.loggers.base import Begin


def csv_points(path: Path) -> list[tuple[tuple[str, int], float]]:
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        ((name, int(row["step"])), float(cell))
        for row in rows
        for name, cell in row.items()
        if name != "step" and cell != ""
    ]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def json_points(path: Path) -> list[tuple[tuple[str, int], float]]:
    return [
        ((name, line["step"]), float(value))
        for line in lines(path)
        if line["kind"] == "values"
        for name, value in line["values"].items()
    ]


def test_csv_holds_every_value_once(tmp_path: Path) -> None:
    run = train(tmp_path / "run", [CSVLogger()])
    points = csv_points(tmp_path / "run" / "metrics.csv")
    assert dict(points) == expected(run)
    assert len(points) == len(dict(points))


def test_json_lines_hold_everything_once(tmp_path: Path) -> None:
    run = train(tmp_path / "run", [JSONLinesLogger()])
    path = tmp_path / "run" / "metrics.jsonl"
    points = json_points(path)
    assert dict(points) == expected(run)
    assert len(points) == len(dict(points))
    found = lines(path)
    assert found[0]["kind"] == "run"
    assert found[0]["hyperparameters"]["optimizer"] == "SGD"
    assert (found[0]["id"], found[-1]["kind"], found[-1]["status"]) == (run.id, "end", "finished")
    texts = [(line["name"], line["step"], line["text"]) for line in found if line["kind"] == "text"]
    assert texts == [("train/remark", step, f"<b>step</b> {step}") for step in MEDIA]
    histogram = next(line for line in found if line["kind"] == "histogram")
    assert histogram["counts"] == [2] * 5
    assert histogram["edges"][0] == 4.0
    pictures = [line["file"] for line in found if line["kind"] == "picture"]
    assert len(pictures) == len(MEDIA)
    assert all((path.parent / file).read_bytes().startswith(b"\x89PNG") for file in pictures)


@pytest.mark.parametrize(("kind", "file", "read"), [
    (CSVLogger, "metrics.csv", csv_points), (JSONLinesLogger, "metrics.jsonl", json_points),
])  # fmt: skip
def test_a_resume_goes_on_without_doubled_points(tmp_path: Path, kind: Any, file: str, read: Any) -> None:
    run = cut_and_resumed(tmp_path / "run", kind)
    points = read(tmp_path / "run" / file)
    assert len(points) == len(dict(points))
    assert dict(points) == expected(run)
    if kind is JSONLinesLogger:
        texts = [line["step"] for line in lines(tmp_path / "run" / file) if line["kind"] == "text"]
        assert sorted(texts) == list(MEDIA)


def test_a_folder_of_its_own_serves_runs_in_memory(tmp_path: Path) -> None:
    run = train(None, [CSVLogger(tmp_path / "logs"), JSONLinesLogger(tmp_path / "logs")])
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == sorted(
        [f"run-{run.id}.csv", f"run-{run.id}.jsonl", f"run-{run.id}.pictures"]
    )
    assert dict(csv_points(tmp_path / "logs" / f"run-{run.id}.csv")) == expected(run)
    for kind in (CSVLogger, JSONLinesLogger):
        with pytest.raises(ValueError, match="the run is in memory"):
            train(None, [kind()])


def begin(folder: Path, step: int = 0, points: Any = ()) -> Begin:
    return Begin("0123abcd", "run", folder, step, list(points), [], {"lr": 0.1})


def test_names_and_values_of_all_kinds_come_back(tmp_path: Path) -> None:
    names = ["train/loss", 'a "quoted", name', "line\nbreak", "\u2028\x85", "<script>", ""]
    values = [math.nan, math.inf, -math.inf, -0.0, 5e-324, 0.1]
    for kind, file, read in (
        (CSVLogger, "metrics.csv", csv_points),
        (JSONLinesLogger, "metrics.jsonl", json_points),
    ):
        logger = kind()
        logger.check(begin(tmp_path))
        logger.open(begin(tmp_path))
        for step, (name, value) in enumerate(zip(names, values, strict=True)):
            logger.write_points([(name, step, value), ("same", step, 1.0)])
        logger.open(begin(tmp_path, 5))
        found = {key: repr(value) for key, value in read(tmp_path / file) if key[0] != "same"}
        assert found == {
            (name, step): repr(value)
            for step, (name, value) in enumerate(zip(names, values, strict=True))
            if step < 5
        }


def test_what_a_kill_left_is_mended(tmp_path: Path) -> None:
    """Killed while writing: the last line is torn, and there are values of steps that come again."""
    program = (
        "import os, signal, sys, torch, treadle; from pathlib import Path; torch.set_num_threads(1)\n"
        "from tests.loggers.training import train\n"
        "class Kills(treadle.Callback):\n"
        "    order = 2000.0\n"
        "    def on_step_end(self, state):\n"
        "        if state.progress.step == 7:\n"
        "            import time; time.sleep(0.3)\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "from treadle.loggers import CSVLogger, JSONLinesLogger\n"
        "train(Path(sys.argv[1]), [CSVLogger(), JSONLinesLogger(), Kills()])\n"
    )
    folder = tmp_path / "run"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program, str(folder)], cwd=root, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    for file in ("metrics.csv", "metrics.jsonl"):
        assert "7" in (folder / file).read_text().split("\n")[-2]
        with open(folder / file, "a") as log:
            log.write('8,0.123,"')
    run = train(folder, [CSVLogger(), JSONLinesLogger()], resume="last")
    for points in (csv_points(folder / "metrics.csv"), json_points(folder / "metrics.jsonl")):
        assert len(points) == len(dict(points))
        assert dict(points) == expected(run)


def test_a_full_disk_leaves_no_half_of_a_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from treadle.loggers import text_files

    path = tmp_path / "file"
    text_files.append(path, "one\n")

    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *error: object) -> None:
            self.file.close()

        def write(self, data: Any) -> int:
            if len(data) < 4:
                raise OSError(28, "No space left on device")
            return int(self.file.write(bytes(data)[:2]))

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    monkeypatch.setattr(text_files, "open", lambda *a, **k: Full(open(*a, **k)), raising=False)  # noqa: SIM115
    with pytest.raises(OSError, match="No space"):
        text_files.append(path, "two\n")
    assert path.read_text() == "one\n"
    assert isinstance(treadle.loggers.CSVLogger(), treadle.Callback)
