"""Retention, and writing while training goes on."""

import errno
import math
import os
import subprocess
import sys
import textwrap
import threading
import time

import pytest
import torch

from treadle.checkpoint import (
    BackgroundWriter,
    CheckpointError,
    Writer,
    commit,
    files,
    finding,
    layout,
    list_checkpoints,
    newest,
    read,
    rewind,
    snapshot,
    write,
)


def steps_in(folder):
    return [entry.step for entry in list_checkpoints(folder)]


def contents_at(step):
    return {"model": {"w": torch.full((3,), float(step))}}


@pytest.mark.parametrize("kind", [Writer, BackgroundWriter])
def test_the_last_and_the_best_are_kept(tmp_path, kind):
    scores = [5.0, 1.0, 3.0, math.nan, 4.0, 2.0, 1.0, 6.0]
    with kind(tmp_path, keep_last=2, keep_best=2) as writer:
        for step, score in enumerate(scores, 1):
            writer.save(step, contents_at(step), score)
    assert steps_in(tmp_path) == [2, 7, 8]
    with kind(tmp_path, keep_last=1, keep_best=1) as writer:  # a resumed run knows the scores
        writer.save(9, contents_at(9), 1.5)
    assert steps_in(tmp_path) == [2, 9]
    with kind(tmp_path, keep_last=1, keep_best=1, mode="max") as writer:
        writer.save(10, contents_at(10))
    assert steps_in(tmp_path) == [9, 10]


def test_none_keeps_all_and_infinity_can_be_best(tmp_path):
    writer = Writer(tmp_path, keep_last=None)
    for step in range(6):
        writer.save(step, contents_at(step), -math.inf if step == 1 else 0.0)
    assert steps_in(tmp_path) == list(range(6))
    assert list_checkpoints(tmp_path)[1].score == -math.inf
    Writer(tmp_path, keep_last=1, keep_best=1).save(6, contents_at(6), math.nan)
    assert steps_in(tmp_path) == [1, 6]


def test_nothing_goes_before_the_new_one_is_there(tmp_path, monkeypatch):
    for step in (1, 2, 3):
        write(tmp_path, step, contents_at(step))
    monkeypatch.setattr(files, "write_file", full_disk)
    with pytest.raises(CheckpointError, match="No space left"):
        Writer(tmp_path, keep_last=1).save(4, contents_at(4))
    assert steps_in(tmp_path) == [1, 2, 3]


def test_the_one_saved_last_stays_even_if_others_are_later(tmp_path):
    for step in (10, 11, 12):
        write(tmp_path, step, contents_at(step))
    Writer(tmp_path, keep_last=1, keep_best=0).save(5, contents_at(5))
    assert steps_in(tmp_path) == [5, 12]
    assert rewind(tmp_path, 5) == [12]
    assert newest(tmp_path).step == 5


def test_a_damaged_manifest_is_left_alone_by_retention_and_taken_by_rewind(tmp_path):
    for step in (1, 2, 3):
        write(tmp_path, step, contents_at(step))
    (tmp_path / "step-00000002" / "manifest.json").write_bytes(b"")
    Writer(tmp_path, keep_last=1).save(4, contents_at(4))
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-00000002", "step-00000004"]
    assert rewind(tmp_path, 0) == [4, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep_last": 0}, "keep_last is 0; allowed"),
        ({"keep_last": True}, "keep_last is True"),
        ({"keep_best": -1}, "keep_best is -1"),
        ({"mode": "best"}, "mode is 'best'; allowed are 'min' and 'max'"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        Writer(tmp_path, **options)


@pytest.mark.parametrize("kind", [Writer, BackgroundWriter])
@pytest.mark.parametrize("step", [-1, 1.0, True, "1", 10**18])
def test_a_wrong_step_is_named(tmp_path, kind, step):
    with pytest.raises(ValueError, match="step is"):
        kind(tmp_path).save(step, contents_at(1))


def slow_down(monkeypatch, gate):
    real = files.write_file

    def slow(path, pieces):
        assert gate.wait(20)
        return real(path, pieces)

    monkeypatch.setattr(files, "write_file", slow)


def test_what_training_does_after_save_changes_nothing(tmp_path, monkeypatch):
    gate = threading.Event()
    slow_down(monkeypatch, gate)
    weight, history = torch.nn.Parameter(torch.ones(1000)), [1]
    tied = {"a": weight, "b": weight, "view": weight.detach()[:10]}
    contents = {"model": tied, "history": history, "nested": {1: {"again": (weight,)}}}
    with BackgroundWriter(tmp_path) as writer:
        writer.save(1, contents)
        with torch.no_grad():
            weight.fill_(7.0)
        history.append(2)
        contents["nested"][1].clear()
        gate.set()
    loaded = newest(tmp_path).contents
    for tensor in (*loaded["model"].values(), loaded["nested"][1]["again"][0]):
        assert torch.all(tensor == 1.0)
    assert loaded["model"]["a"] is loaded["model"]["b"]
    assert loaded["history"] == [1]


def test_a_snapshot_is_not_copied_again(tmp_path, monkeypatch):
    copied = snapshot(contents_at(1))
    monkeypatch.setattr("treadle.checkpoint.writer.snapshot", None)
    with BackgroundWriter(tmp_path) as writer:
        writer.save(1, copied)
    assert torch.equal(newest(tmp_path).contents["model"]["w"], torch.ones(3))


def test_one_save_is_under_way_at_most_and_in_order(tmp_path, monkeypatch):
    gate, commits = threading.Event(), []
    slow_down(monkeypatch, gate)
    writer = BackgroundWriter(tmp_path, on_commit=commits.append)
    writer.save(1, contents_at(1))
    assert newest(tmp_path) is None
    assert [t.name for t in threading.enumerate()].count("treadle-checkpoint") == 1
    threading.Timer(0.2, gate.set).start()
    start = time.monotonic()
    writer.save(2, contents_at(2))
    assert time.monotonic() - start > 0.1
    assert commits[0].step == 1
    writer.wait()
    assert [commit.step for commit in commits] == [1, 2]
    assert writer.last == commits[1]
    assert commits[1].path == tmp_path / "step-00000002"
    writer.close()
    writer.close()
    with pytest.raises(RuntimeError, match="closed"):
        writer.save(3, contents_at(3))
    assert "treadle-checkpoint" not in [t.name for t in threading.enumerate()]


def test_no_thread_before_the_first_save(tmp_path):
    before = threading.active_count()
    with BackgroundWriter(tmp_path):
        assert threading.active_count() == before
    assert not list(tmp_path.iterdir())


def full_disk(path, pieces):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


@pytest.mark.parametrize("ending", ["save", "wait", "close"])
def test_a_full_disk_keeps_the_previous_and_is_told_once(tmp_path, monkeypatch, ending):
    writer = BackgroundWriter(tmp_path)
    writer.save(1, contents_at(1))
    writer.wait()
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_file", full_disk)
        writer.save(2, contents_at(2))
        finish = {"save": lambda: writer.save(3, contents_at(3)), "wait": writer.wait, "close": writer.close}
        with pytest.raises(
            CheckpointError, match=r"saving step 2 in the background failed.*No space left"
        ) as caught:
            finish[ending]()
    assert isinstance(caught.value.__cause__, CheckpointError)
    assert isinstance(caught.value.__cause__.__cause__, OSError)
    assert newest(tmp_path).step == 1
    assert sorted(os.listdir(tmp_path)) == [".lock", "step-00000001"]
    if ending != "close":
        writer.save(4, contents_at(4))
    writer.close()
    assert newest(tmp_path).step == (1 if ending == "close" else 4)


def test_an_error_in_on_commit_reaches_the_training_thread(tmp_path):
    def fail(commit):
        raise KeyError("mine")

    writer = BackgroundWriter(tmp_path, on_commit=fail)
    writer.save(1, contents_at(1))
    with pytest.raises(CheckpointError) as caught:
        writer.close()
    assert isinstance(caught.value.__cause__, KeyError)
    assert newest(tmp_path).step == 1


def test_what_cannot_be_saved_is_told_at_once(tmp_path):
    with BackgroundWriter(tmp_path) as writer, pytest.raises(TypeError, match=r"contents\.callbacks\.mine"):
        writer.save(1, {"callbacks": {"mine": object()}})


def test_a_crash_of_the_main_thread_finishes_the_save_and_ends(tmp_path):
    program = """
        import sys, torch
        from treadle.checkpoint import BackgroundWriter
        writer = BackgroundWriter(sys.argv[1])
        writer.save(1, {"model": {"w": torch.zeros(3)}})
        writer.wait()
        writer.save(2, {"model": {"w": torch.zeros(3_000_000)}})
        raise SystemError("crash")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), tmp_path],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert b"SystemError: crash" in done.stderr
    assert newest(tmp_path).step == 2


def test_readers_never_see_a_half_while_it_is_replaced(tmp_path):
    write(tmp_path, 1, {"model": {"w": torch.zeros(1000)}, "value": 0})
    stop = threading.Event()

    def replace():
        value = 0
        while not stop.is_set():
            value += 1
            write(tmp_path, 1, {"model": {"w": torch.full((1000,), float(value))}, "value": value})

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        for _ in range(100):
            try:
                found = newest(tmp_path)
            except CheckpointError:  # moved away while it was read: an error, never a mixture
                continue
            assert found is None or torch.all(found.contents["model"]["w"] == found.contents["value"])
    finally:
        stop.set()
        thread.join()
    assert read(tmp_path / "step-00000001")["value"] > 0


def test_the_newest_is_looked_for_again_where_it_was_removed_while_it_was_read(tmp_path, monkeypatch):
    write(tmp_path, 1, {"value": 1})
    sound = finding.read

    def read_late(path):  # as if a running training saved and tidied up between listing and reading
        if path.name == "step-00000001" and path.exists():
            write(tmp_path, 2, {"value": 2})
            commit.discard(tmp_path, [1])
        return sound(path)

    monkeypatch.setattr(finding, "read", read_late)
    found = newest(tmp_path)
    assert (found.step, found.contents["value"], found.skipped) == (2, 2, [])


def test_files_removed_while_they_are_read_are_one_clear_error(tmp_path, monkeypatch):
    path = write(tmp_path, 1, {"model": {"w": torch.zeros(1)}, "value": 1})
    listed = os.listdir

    def listed_then_removed(folder):
        names = listed(folder)
        (path / "state.json").unlink(missing_ok=True)
        return names

    monkeypatch.setattr(layout.os, "listdir", listed_then_removed)
    with pytest.raises(CheckpointError, match="No such file"):
        read(path)
