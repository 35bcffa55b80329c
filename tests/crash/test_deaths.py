"""Other ways to die than SIGKILL: signals, lost workers, exceptions anywhere, disks that fail."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.crash.chain import newest_step
from tests.crash.client import Server, Training
from tests.crash.program import Setting, differences, record_of

from treadle.runs import Run

SETTING = Setting(
    "dies", samples=40, epochs=3, dropout=0.3, augment=True, averaging=True, background=False, keep_last=None
)


@pytest.fixture(scope="module")
def whole(server: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("whole") / "run"
    server.start(SETTING, folder).finish()
    return record_of(folder)


def ends_the_same(server: Server, setting: Setting, folder: Path, whole: dict[str, object]) -> None:
    server.start(setting, folder).finish()
    assert differences(whole, record_of(folder)) == []


def until_step(training: Training, folder: Path, step: int) -> None:
    deadline = time.monotonic() + 60
    while newest_step(folder) < step:
        assert time.monotonic() < deadline, training.said()
        time.sleep(0.002)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [0, 2])
def test_the_first_signal_ends_the_step_saves_and_leaves_with_75(
    server: Server, tmp_path: Path, whole: dict[str, object], number: int, workers: int
) -> None:
    """Saved only by the signal: after each epoch otherwise."""
    setting = replace(SETTING, every_steps=4, workers=workers)
    folder = tmp_path / "run"
    for step in (4, 12):
        training = server.start(setting, folder)
        until_step(training, folder, step)
        training.send(number)
        assert training.wait() == 75, training.said()
        run = Run.open(folder)
        assert run.status == "interrupted"
        assert run.reason == f"{signal.Signals(number).name} received"
        assert newest_step(folder) == run.step
    ends_the_same(server, setting, folder, whole)


@pytest.mark.parametrize(
    ("first", "second"), [(15, 15), (2, 2), (2, 15), (15, 2)], ids=["TERM", "INT", "INT, TERM", "TERM, INT"]
)
def test_a_second_signal_leaves_at_once(
    server: Server, tmp_path: Path, whole: dict[str, object], first: int, second: int
) -> None:
    folder = tmp_path / "run"
    details = {"step": 7, "seconds": 60.0}  # a step that takes its time
    training = server.start(SETTING, folder, scene="long step", details=details)
    until_step(training, folder, 6)
    time.sleep(0.1)
    training.send(first)
    time.sleep(0.1)
    training.send(second)
    assert training.wait(within=20) not in (0, 75)
    assert newest_step(folder) == 6
    ends_the_same(server, SETTING, folder, whole)


def test_a_signal_to_all_processes_at_once_leaves_with_75_too(
    server: Server, tmp_path: Path, whole: dict[str, object]
) -> None:
    """As a terminal or a batch system sends it: the workers get it as well."""
    for number in (signal.SIGINT, signal.SIGTERM):
        folder = tmp_path / str(int(number))
        training = server.start(replace(SETTING, workers=2), folder)
        until_step(training, folder, 4)
        os.killpg(training.pid, number)
        assert training.wait() == 75, training.said()
        ends_the_same(server, SETTING, folder, whole)


def test_a_stopped_process_goes_on(server: Server, tmp_path: Path, whole: dict[str, object]) -> None:
    folder = tmp_path / "run"
    training = server.start(SETTING, folder)
    for step in (3, 9, 15):
        until_step(training, folder, step)
        training.send(signal.SIGSTOP)
        time.sleep(0.3)
        assert newest_step(folder) < 30
        training.send(signal.SIGCONT)
    training.finish()
    assert differences(whole, record_of(folder)) == []


@pytest.mark.parametrize("stream", [False, True])
def test_a_killed_worker_is_named_and_the_run_can_go_on(
    server: Server, tmp_path: Path, whole: dict[str, object], stream: bool
) -> None:
    setting = replace(SETTING, workers=2, stream=stream)
    if stream:
        server.start(setting, tmp_path / "whole").finish()
        whole = record_of(tmp_path / "whole")
    folder = tmp_path / "run"
    training = server.start(setting, folder, scene="long step", details={"step": 7, "seconds": 3.0})
    until_step(training, folder, 6)
    # Those of the validation data, if any, have gone by now; these are forked before step 1.
    victim = workers_of(training)[0]
    os.kill(victim, signal.SIGKILL)
    assert training.wait(within=60) == 1
    assert f"DataLoader worker (pid {victim}) is killed by signal: Killed" in training.said()
    run = Run.open(folder)
    assert run.status == "failed"
    assert f"pid {victim}" in str(run.reason) or "exited unexpectedly" in str(run.reason)
    ends_the_same(server, setting, folder, whole)


def workers_of(training: Training) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(training.pid)], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


@pytest.mark.parametrize("seconds", [0.05, 0.1, 0.15, 0.2, 0.4, None])
def test_workers_go_with_a_killed_trainer(server: Server, tmp_path: Path, seconds: float | None) -> None:
    """Also one whose trainer is killed while it begins; torch would look after seconds, or never."""
    trainings = [
        server.start(replace(SETTING, workers=4), tmp_path / str(number), scene="long step",
                     details={"step": 1, "seconds": 60.0})
        for number in range(3)
    ]  # fmt: skip
    if seconds is not None:
        time.sleep(seconds)
    deadline = time.monotonic() + 60  # without a moment to be killed at: when all workers are there
    while seconds is None and any(len(workers_of(training)) < 4 for training in trainings):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for training in trainings:
        training.send(signal.SIGKILL)
        assert training.wait() == -signal.SIGKILL
    assert server.survivors(1.0) == set()


HOOKS = (
    *("on_fit_start", "on_epoch_start", "on_step_start", "on_batch_start", "on_after_forward"),
    *("on_after_loss", "on_after_backward", "on_batch_end", "on_before_optimizer_step"),
    *("on_after_optimizer_step", "on_log", "on_step_end", "on_eval_start", "on_eval_batch_start"),
    *("on_eval_batch_end", "on_eval_end", "on_epoch_end", "on_fit_end", "on_cleanup"),
)


@pytest.mark.slow
@pytest.mark.parametrize("where", [*HOOKS, "dataset", "loss", "transform of the model"])
def test_an_exception_anywhere_ends_with_the_users_frame_and_the_run_can_go_on(
    server: Server, tmp_path: Path, whole: dict[str, object], where: str
) -> None:
    folder = tmp_path / "run"
    training = server.start(SETTING, folder, scene="exception", details={"where": where, "step": 14})
    assert training.wait() == 1, training.said()
    said = training.said().strip().split("\n")
    notes = [line for line in said[-1:] if where == "dataset"]  # which sample it was
    assert said[-1 - len(notes)] == "RuntimeError: the user's mistake", training.said()
    frames = [line for line in said if line.startswith("  File ")]
    assert "scenes.py" in frames[-1]
    assert "in mistake" in frames[-1]
    run = Run.open(folder)
    assert (run.status, run.reason) == ("failed", "RuntimeError: the user's mistake")
    steps = {"on_fit_start": 0, "on_fit_end": 30, "on_cleanup": 30}
    assert newest_step(folder) >= steps.get(where, 12)
    ends_the_same(server, SETTING, folder, whole)


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("code", ["EIO", "ENOSPC", "EACCES", "EROFS"])
def test_a_save_that_fails_stops_the_run_which_can_go_on(
    server: Server, tmp_path: Path, whole: dict[str, object], code: str, background: bool
) -> None:
    setting = replace(SETTING, background=background)
    folder = tmp_path / "run"
    details = {"at": 1, "how": code, "lasting": True, "only": ".step-00000008.new"}
    training = server.start(setting, folder, scene="dying disk", details=details)
    assert training.wait() == 1
    last = training.said().strip().split("\n")[-1]
    assert last.startswith("treadle.checkpoint.errors.CheckpointError: ")
    assert os.strerror(getattr(errno, code)) in last
    assert "step-00000008" in last
    assert newest_step(folder) == 7
    assert Run.open(folder).status == "failed"
    ends_the_same(server, setting, folder, whole)


@pytest.mark.parametrize("background", [False, True])
def test_a_save_that_fails_may_be_no_more_than_a_warning(
    server: Server, tmp_path: Path, whole: dict[str, object], background: bool
) -> None:
    setting = replace(SETTING, background=background, on_error="warn")
    folder = tmp_path / "run"
    details = {"at": 1, "how": "EIO", "lasting": True, "only": ".step-00000008.new"}
    training = server.start(setting, folder, scene="dying disk", details=details)
    training.finish()
    assert "Input/output error" in training.said()
    assert "; training goes on" in training.said()
    run = Run.open(folder)
    failed = [event for event in run.events if event.kind == "checkpoint failed"]
    assert [event.step for event in failed] == [9 if background else 8]
    assert "step-00000008" in failed[0].details["reason"]
    kept = [path.name for path in run.checkpoints]
    assert {"step-00000007", "step-00000008", "step-00000009"} - set(kept) == {"step-00000008"}
    assert differences(whole, record_of(folder)) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> object:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1600k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small disk needs the right to mount one")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("what", ["checkpoints", "metrics"])
def test_a_full_disk_is_told_and_the_run_goes_on_where_there_is_room(
    server: Server, tmp_path: Path, whole: dict[str, object], small_disk: Path, what: str
) -> None:
    """Keeping every checkpoint of a disk of 1.6 MB; or a filler that leaves nothing for the record."""
    folder = small_disk / "run"
    if what == "metrics":
        details = {"step": 9, "filler": str(small_disk / "filler")}
        training = server.start(SETTING, folder, tmp_path / "log", scene="filled disk", details=details)
        said = "cannot be written"
    else:
        training = server.start(SETTING, folder, tmp_path / "log")
        said = "are free on this disk"
    assert training.wait() == 1
    assert said in training.said(), training.said()
    assert newest_step(folder) >= 3
    shutil.copytree(folder, tmp_path / "elsewhere")
    ends_the_same(server, SETTING, tmp_path / "elsewhere", whole)


@pytest.mark.parametrize("background", [False, True])
def test_a_limit_on_file_sizes_is_told(
    server: Server, tmp_path: Path, whole: dict[str, object], background: bool
) -> None:
    """RLIMIT_FSIZE lets the record grow a while and then no file any more."""
    setting = replace(SETTING, background=background)
    folder = tmp_path / "run"
    training = server.start(setting, folder, largest_file=60_000)
    assert training.wait() == 1
    assert "Error: " in training.said().strip().split("\n")[-1]
    assert Run.open(folder).status in ("failed", "interrupted")
    ends_the_same(server, setting, folder, whole)


def test_a_folder_that_may_only_be_read(server: Server, tmp_path: Path, whole: dict[str, object]) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become somebody who may not write here")
    folder = tmp_path / "run"
    training = server.start(SETTING, folder)
    until_step(training, folder, 5)
    training.kill(0.0)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    for parent in (tmp_path, *tmp_path.parents[:3]):
        parent.chmod(parent.stat().st_mode | 0o055)
    training = server.start(SETTING, folder, user=65534)
    assert training.wait() == 1
    assert (
        "Permission denied" in training.said() or "readonly" in training.said() or "cannot" in training.said()
    )
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before
    ends_the_same(server, SETTING, folder, whole)


def test_a_clock_that_goes_backwards(server: Server, tmp_path: Path, whole: dict[str, object]) -> None:
    folder = tmp_path / "run"
    for step, back in ((6, 0.0), (14, 1e8), (22, 2e8)):
        training = server.start(SETTING, folder, scene="clock", details={"back": back})
        until_step(training, folder, step)
        training.kill(0.0)
    ends_the_same(server, SETTING, folder, whole)
    times = Run.open(folder).clock.times
    assert (times[1:] >= times[:-1]).all()
