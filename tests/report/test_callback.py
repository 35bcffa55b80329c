"""The report is there when a run ends, is kept up to date before, and never gets in its way."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import treadle
from treadle.report import callback as report_callback
from treadle.runs import Run


def train(folder: Path | None, **options: Any) -> Run:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2))
    task = treadle.SupervisedTask(model, cross_entropy, torch.optim.SGD, lr=0.1)
    data = (torch.arange(72.0).reshape(24, 3) / 72, torch.arange(24) % 2)
    settings = {"max_epochs": 3, "seed": 0, "device": "cpu", "progress": False, "log_every": 1, **options}
    return treadle.Trainer(run_dir=folder, **settings).fit(
        task, treadle.Loader(data, 8, shuffle=True), data, **({"test": data} if folder else {})
    )


def shown(folder: Path) -> dict[str, Any]:
    """What a report draws."""
    text = (folder / "report.html").read_text()
    begin = text.index('id="data">') + len('id="data">')
    found: dict[str, Any] = json.loads(text[begin : text.index("</script>", begin)])
    return found


def test_a_run_leaves_a_report_of_its_end(tmp_path: Path) -> None:
    run = train(tmp_path / "run")
    assert run.path is not None
    text = (run.path / "report.html").read_text()
    assert '<span class="status finished">finished</span>' in text
    assert "max_epochs=3 reached" in text
    assert str(run.weights_sha256) in text
    curves = {(curve["name"], curve["per"]): curve for curve in shown(run.path)["runs"][0]["curves"]}
    assert curves["train/loss", "step"]["points"] == 9
    assert curves["test/loss", "step"]["points"] == 1  # evaluated after training


def test_a_run_in_memory_or_without_it_has_none(tmp_path: Path) -> None:
    assert train(None).path is None
    train(tmp_path / "run", report=None)
    assert not (tmp_path / "run" / "report.html").exists()


def test_a_run_that_fails_has_a_report_that_says_so(tmp_path: Path) -> None:
    class Broken(treadle.Callback):
        def on_step_end(self, state: treadle.State) -> None:
            if state.progress.step == 4:
                raise ValueError("<b>mistake</b>")

    with pytest.raises(ValueError, match="mistake"):
        train(tmp_path / "run", callbacks=[Broken()])
    text = (tmp_path / "run" / "report.html").read_text()
    assert '<span class="status failed">failed</span>' in text
    assert "ValueError: &lt;b&gt;mistake&lt;/b&gt;" in text


def test_it_is_refreshed_while_the_run_goes_on_without_holding_it_up(tmp_path: Path) -> None:
    seen: list[str] = []

    class Waits(treadle.Callback):
        """Waits, once, until there is a report, which nobody writes but the thread."""

        def on_step_end(self, state: treadle.State) -> None:
            deadline = time.monotonic() + 20
            while state.progress.step == 5 and time.monotonic() < deadline:
                if (state.run.path / "report.html").exists():
                    seen.append((state.run.path / "report.html").read_text())
                    return
                time.sleep(0.01)

    run = train(tmp_path / "run", report=treadle.ReportWriter(seconds=1e-9), callbacks=[Waits()])
    assert '<span class="status running">running</span>' in seen[0]
    assert run.path is not None
    assert '<span class="status finished">finished</span>' in (run.path / "report.html").read_text()
    assert [thread.name for thread in threading.enumerate() if thread.name == "report"] == []


def test_at_most_one_is_written_at_a_time_and_seldom(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    begun: list[str] = []
    release = threading.Event()

    def slow(run: Run, path: Path) -> Path:
        begun.append(run.status)
        if run.status == "running":
            assert release.wait(20)
        return path

    class Release(treadle.Callback):
        def on_cleanup(self, state: treadle.State) -> None:
            release.set()

    monkeypatch.setattr("treadle.report.document.write_report", slow)
    train(tmp_path / "run", report=treadle.ReportWriter(seconds=1e-9), callbacks=[Release()])
    assert begun == ["running", "finished"]
    begun.clear()
    train(tmp_path / "other")  # shorter than the least time
    assert begun == ["finished"]


def test_a_report_that_fails_is_said_once_and_fails_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = train(tmp_path / "whole", report=None)
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING, "treadle"):
        run = train(tmp_path / "run", report=treadle.ReportWriter(1e-9, tmp_path / "file" / "report.html"))
    assert run.status == "finished"
    assert run.weights_sha256 == whole.weights_sha256
    assert len(caplog.records) == 1
    assert "the report could not be written: RunError" in caplog.text


def test_a_report_that_hangs_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()
    monkeypatch.setattr("treadle.report.document.write_report", lambda run, path: release.wait(20))
    monkeypatch.setattr(report_callback, "LONGEST_WAIT", 0.05)
    with caplog.at_level(logging.WARNING, "treadle"):
        run = train(tmp_path / "run", report=treadle.ReportWriter(1e-9))
    release.set()
    assert run.status == "finished"
    assert "not written after 0.05 seconds" in caplog.text


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), float("inf"), True, "30"])
def test_seconds_are_checked(seconds: Any) -> None:
    with pytest.raises(ValueError, match="seconds is"):
        treadle.ReportWriter(seconds)


def test_what_a_trainer_takes_is_checked() -> None:
    with pytest.raises(TypeError, match=r"report is 'yes'; give treadle.ReportWriter"):
        treadle.Trainer(1, report="yes")  # type: ignore[arg-type]


def test_reporting_changes_nothing_of_the_run(tmp_path: Path) -> None:
    train_one: Callable[..., Run] = train
    without = train_one(tmp_path / "without", report=None)
    often = train_one(tmp_path / "often", report=treadle.ReportWriter(1e-9))
    assert without.weights_sha256 == often.weights_sha256
    assert without.series("train/loss").values.tolist() == often.series("train/loss").values.tolist()
    assert [event.kind for event in without.events] == [event.kind for event in often.events]
