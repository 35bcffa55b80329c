from __future__ import annotations

import json
from pathlib import Path

from treadle.cli.main import main
from treadle.cli.printing import number, plain_number, shown_path, table
from treadle.runs import Run


def make(path: str, **fields: object) -> Run:
    with Run.create(path, name="a", config={}, environment={}) as run:
        run.update(**fields)
    return run


def test_runs_are_listed_newest_first(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    first = make("runs/one", status="finished", step=10, epoch=2, weights_sha256="f" * 64)
    second = make("runs/deep/two", status="failed", step=3)
    Path("runs/broken").mkdir()
    Path("runs/broken/run.json").write_text("{")
    assert main(["runs"]) == 0
    shown = capsys.readouterr()
    lines = [line.split() for line in shown.out.splitlines()]
    assert lines[0] == ["id", "run", "status", "epoch", "step", "created", "optimizer", "weights"]
    assert lines[1][:5] == [second.id, "runs/deep/two", "failed", "0", "3"]
    assert lines[2][:5] == [first.id, "runs/one", "finished", "2", "10"]
    assert lines[2][-1] == "f" * 12
    assert "treadle: skipped " in shown.err
    assert main(["runs", "runs", "--json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["id"] for record in records] == [second.id, first.id]
    assert records[0]["path"] == str(tmp_path / "runs/deep/two")


def test_no_runs_and_no_folder(tmp_path: Path, capsys) -> None:
    assert main(["runs", str(tmp_path)]) == 0
    assert "no runs in" in capsys.readouterr().err
    assert main(["runs", str(tmp_path / "none")]) == 2
    assert "there is no such folder" in capsys.readouterr().err


def test_a_table_has_numbers_to_the_right() -> None:
    shown = table(("name", "value"), [("a", "1.5"), ("long", "22e-05"), ("b", "-")])
    assert shown == "name   value\na        1.5\nlong  22e-05\nb          -"


def test_numbers_and_paths(tmp_path: Path, monkeypatch) -> None:
    assert number(1 / 3) == "0.333333"
    assert plain_number(float("nan")) == "nan"
    assert plain_number(0.5) == 0.5
    monkeypatch.chdir(tmp_path)
    assert shown_path(tmp_path / "a") == "a"
    assert shown_path("/elsewhere") == "/elsewhere"
