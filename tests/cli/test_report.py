"""`treadle report` and `treadle watch`."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
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


def test_a_browser_is_given_an_address_until_ctrl_c(tmp_path: Path) -> None:
    run = usual(tmp_path / "runs" / "run")
    command = [sys.executable, "-m", "treadle.cli", "watch"]  # the newest in runs/
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watch:
        try:
            assert watch.stdout is not None
            url = watch.stdout.readline().strip()
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{32}/", url)
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(url, timeout=20) as response:
                assert run.id in response.read().decode()
        finally:
            watch.send_signal(signal.SIGINT)
            threading.Timer(20, watch.kill).start()
        assert watch.communicate(timeout=30) == ("", "")
    assert watch.returncode == 0


def test_what_cannot_be_watched_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["watch"]) == 2
    assert "there is no run in runs/" in capsys.readouterr().err
    runs = [str(usual(tmp_path / name).path) for name in ("one", "two")]
    assert main(["watch", "--terminal", *runs]) == 2
    assert "--terminal draws one run" in capsys.readouterr().err
    assert main(["watch", "--port", "70000", runs[0]]) == 2
    assert "--port 70000: give a number from 0" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["watch", "--port", str(taken.getsockname()[1]), runs[0]]) == 2
    assert "Address already in use" in capsys.readouterr().err
