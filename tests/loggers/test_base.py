"""A logger never stops or slows a run, whatever it does itself."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.loggers.training import MEDIA, generators, train

import treadle
from treadle import loggers
from treadle.loggers import Logger
from treadle.loggers.hyperparameters import flat


class Kept(Logger):
    """Keeps what it is told, and can be made to fail or to hang."""

    def __init__(self, fails: Callable[[int], bool] = lambda call: False, **options: Any) -> None:
        super().__init__(**options)
        self.fails = fails
        self.calls = 0
        self.said: list[Any] = []
        self.threads: set[str] = set()

    def _said(self, *what: Any) -> None:
        self.calls += 1
        self.threads.add(threading.current_thread().name)
        if self.fails(self.calls):
            raise OSError(f"call {self.calls} failed")
        self.said.append(what)

    def open(self, begin: loggers.Begin) -> None:
        self._said("open", begin)

    def write_points(self, points: Any) -> None:
        self._said("points", *points)

    def write_text(self, name: str, step: int, text: str) -> None:
        self._said("text", name, step, text)

    def close(self, status: str) -> None:
        self._said("close", status)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting between tries."""
    made = loggers.base.Background
    monkeypatch.setattr(loggers.base, "Background", lambda *given: made(*given, pause=0.001))


def test_what_is_measured_arrives_in_order_on_a_thread_of_its_own() -> None:
    logger = Kept()
    run = train(None, [logger])
    kinds = [said[0] for said in logger.said]
    assert (kinds[0], kinds[-1]) == ("open", "close")
    begin = logger.said[0][1]
    assert (begin.id, begin.step, begin.points) == (run.id, 0, [])
    assert begin.hyperparameters["learning_rate"] == 0.1
    points = [point for said in logger.said if said[0] == "points" for point in said[1:]]
    losses = [(step, value) for name, step, value in points if name == "train/loss"]
    assert losses == list(zip(range(1, 13), run.series("train/loss").values.tolist(), strict=True))
    assert [step for name, step, _ in points if name == "epoch/train/loss"] == [4, 8, 12]
    assert [step for name, step, _ in points if name == "train/accuracy"] == [4, 8, 12]
    assert [said[2] for said in logger.said if said[0] == "text"] == list(MEDIA)
    assert logger.threads == {"Kept"}
    assert "Kept" not in [thread.name for thread in threading.enumerate()]


def test_one_failure_is_tried_again_and_nothing_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    whole, logger = Kept(), Kept(fails=lambda call: call % 3 == 1)  # also the first, which opens
    train(None, [whole])
    with caplog.at_level(logging.WARNING, "treadle"):
        train(None, [logger])
    without = [[one[:1] if one[0] == "open" else one for one in kept.said] for kept in (whole, logger)]
    assert without[0] == without[1]
    assert caplog.records == []


def test_one_that_always_fails_is_said_and_the_run_is_the_same(caplog: pytest.LogCaptureFixture) -> None:
    whole = train(None, [])
    logger = Kept(fails=lambda call: True, retries=2)
    with caplog.at_level(logging.WARNING, "treadle"):
        run = train(None, [logger])
    assert (run.status, run.weights_sha256) == ("finished", whole.weights_sha256)
    assert len(caplog.records) == 2  # at the first, and at the end
    assert "OSError: call 3 failed" in caplog.text
    assert "Kept: something is not logged, and the run goes on" in caplog.text


def test_one_that_comes_back_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    logger = Kept(fails=lambda call: 3 <= call <= 6, retries=1)
    with caplog.at_level(logging.WARNING, "treadle"):
        train(None, [logger])
    assert "2 times something was not logged" in caplog.text
    assert logger.said[-1] == ("close", "finished")


def test_one_that_hangs_holds_up_neither_a_step_nor_the_end(caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()

    class Hangs(Kept):
        def write_points(self, points: Any) -> None:
            release.wait(60)

    began = time.perf_counter()
    with caplog.at_level(logging.WARNING, "treadle"):
        run = train(None, [Hangs(capacity=3, timeout=0.1)])
    assert time.perf_counter() - began < 5
    release.set()
    assert run.status == "finished"
    assert "it is too slow" in caplog.text
    assert "times something was not logged" in caplog.text


def test_loggers_leave_no_trace_in_the_run(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", [])
    before = generators()
    run = train(tmp_path / "run", [Kept(), loggers.CSVLogger(), loggers.JSONLinesLogger()])
    assert generators() == before
    assert run.weights_sha256 == whole.weights_sha256
    assert run.series("train/loss").values.tolist() == whole.series("train/loss").values.tolist()


def test_a_run_that_fails_is_closed_as_failed() -> None:
    class Broken(treadle.Callback):
        def on_step_end(self, state: treadle.State) -> None:
            raise ZeroDivisionError

    logger = Kept()
    with pytest.raises(ZeroDivisionError):
        train(None, [logger, Broken()])
    assert logger.said[-1] == ("close", "failed")


def test_nothing_more_is_read_from_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    item = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: (reads.append(1), item(self))[1])
    train(None, [])
    without = len(reads)
    reads.clear()
    train(None, [Kept(), Kept()])
    assert len(reads) == without


def test_arguments_are_checked_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="capacity is 0, retries 3, timeout 10"):
        Kept(capacity=0)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with pytest.raises(ValueError, match="mode is 'disabled'; allowed are 'offline' and 'online'"):
        loggers.WandbLogger(mode="disabled")  # type: ignore[arg-type]


@pytest.mark.parametrize("package", ["tensorboard", "mlflow", "wandb", "trackio"])
def test_a_missing_package_is_said_at_once(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    kinds = {kind.package: kind for kind in Logger.__subclasses__()}
    with pytest.raises(ImportError, match=rf"needs {package}: pip install 'treadle\[{package}\]'"):
        kinds[package]()


def test_settings_become_a_flat_table() -> None:
    tree = {"a": {"b": [1, 2], "c": None}, "d": [{"e": True}, {"e": 0.5}], "f": "x" * 1000}
    table = flat(tree)
    assert table == {"a.b": "[1, 2]", "a.c": "None", "d.0.e": True, "d.1.e": 0.5, "f": "x" * 250}
