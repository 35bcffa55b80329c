"""`treadle report` and `treadle watch --terminal`."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.report.samples import usual

from treadle.cli.main import main


def test_runs_are_reported_by_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(usual(tmp_path / name, name, lr).path) for name, lr in (("one", 0.1), ("two", 0.2))]
    assert main(["report", *runs, "-o", str(tmp_path / "both.html")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'both.html'}\n"
    text = (tmp_path / "both.html").read_text()
    assert "one · two" in text
    assert "task.lr" in text


def test_what_cannot_be_reported_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "none")]) == 2
    assert "none" in capsys.readouterr().err
    run = usual(tmp_path / "run")
    assert main(["report", str(run.path), "-o", str(tmp_path / "no" / "report.html")]) == 2
    assert "the report cannot be written" in capsys.readouterr().err


def test_watching_in_a_terminal_draws_once_where_there_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = usual(tmp_path / "run")
    assert main(["watch", "--terminal", str(run.path)]) == 0
    said = capsys.readouterr().out
    assert "* train/loss" in said
    assert "\x1b" not in said
    assert max(map(len, said.splitlines())) <= 80
    assert main(["watch", "--terminal", str(run.path), "--metric", "val/accuracy"]) == 0
    said = capsys.readouterr().out
    assert "val/accuracy" in said
    assert "train/loss" not in said
    assert main(["watch", "--terminal", str(run.path), "--metric", "none"]) == 2
    assert "there is no curve 'none'" in capsys.readouterr().err
    assert main(["watch", "--terminal", str(run.path), "--every", "0"]) == 2
