"""A run's folder: whole at every moment, never used twice, read by anybody, written by one."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from treadle.runs import Run, RunError, free_path, newest_of
from treadle.runs import files as run_files
from treadle.runs import folders as run_folders

CONFIG = {"lr": 1e-3, "nested": {"shape": (3, 4), "limit": math.inf}, "nothing": None, "text": "ü\n<script>"}


@pytest.fixture
def run(tmp_path):
    with Run.create(tmp_path / "digits", name="digits", config=CONFIG, environment={"seed": 7}) as run:
        yield run


def test_a_new_run_has_all_its_files_and_says_who_it_is(run, tmp_path):
    assert run.path == tmp_path / "digits"
    names = {path.name for path in run.path.iterdir() if not path.name.startswith((".", "metrics.sqlite-"))}
    assert names == {"run.json", "config.json", "environment.json", "metrics.sqlite", "checkpoints"}
    assert os.listdir(tmp_path) == ["digits"]
    assert (run.name, run.status, run.reason, run.step, run.epoch) == ("digits", "running", None, 0, 0)
    assert run.weights_sha256 is None
    assert run.fields["seed"] == 7
    assert len(run.id) == 8
    assert abs(run.created - time.time()) < 60
    assert run.ended is None


def test_another_opening_reads_all_of_it(run):
    run.append_steps([("loss", 1, 2.0), ("loss", 2, math.nan)])
    run.append_epoch(1, 2, {"val/loss": 1.5})
    run.event("checkpoint", 2, path="x", scores=[1.0, math.inf])
    run.update(
        status="finished", reason="max_epochs", step=2, epoch=1, weights_sha256="ab" * 32, own={"a": 1}
    )
    for reader in (run, Run.open(run.path)):
        assert reader.config == {**CONFIG, "nested": {"shape": [3, 4], "limit": math.inf}}
        assert reader.environment == {"seed": 7}
        assert reader.names() == ["loss"]
        assert reader.series("loss").steps.tolist() == [1, 2]
        assert reader.history["val/loss"] == [1.5]
        assert [event[:2] for event in reader.events] == [("checkpoint", 2)]
        assert reader.events[0].details == {"path": "x", "scores": [1.0, math.inf]}
        assert (reader.status, reader.reason, reader.step, reader.epoch) == ("finished", "max_epochs", 2, 1)
        assert (reader.weights_sha256, reader.fields["own"]) == ("ab" * 32, {"a": 1})
        assert abs(reader.ended - time.time()) < 60
    assert json.loads((run.path / "run.json").read_text())["weights_sha256"] == "ab" * 32
    json.loads((run.path / "config.json").read_text(), parse_constant=pytest.fail)


def test_in_memory_everything_works_and_there_is_no_path():
    run = Run.create(None)
    run.append_steps([("loss", 1, 2.0)])
    run.append_epoch(1, 1, {"val/loss": 1.0})
    run.event("stopped", 1)
    run.update(status="finished")
    run.rewind(1)
    run.flush()
    run.close()
    assert (run.path, run.checkpoints, run.checkpoint_folder) == (None, [], None)
    assert (run.status, run.history["val/loss"], len(run.events), run.config) == ("finished", [1.0], 1, {})


def test_after_closing_it_reads_but_does_not_write(run):
    run.append_steps([("loss", 1, 2.0)])
    run.close()
    run.close()
    assert run.series("loss").values.tolist() == [2.0]
    for write in (
        lambda: run.append_steps([("loss", 2, 1.0)]),
        lambda: run.append_epoch(1, 1, {}),
        lambda: run.event("x", 1),
        lambda: run.update(step=3),
        lambda: run.rewind(0),
        lambda: run.flush(),
    ):
        with pytest.raises(RunError, match="opened for reading"):
            write()


def test_reopening_goes_on_where_it_was_rewound(run):
    run.append_steps([("loss", step, float(step)) for step in range(1, 500)])
    run.close()
    with Run.reopen(run.path) as again:
        again.rewind(250)
        again.update(status="running", step=250)
        again.append_steps([("loss", step, -1.0) for step in range(251, 300)])
    steps, values = Run.open(run.path).series("loss")
    assert steps.tolist() == list(range(1, 300))
    assert values.tolist() == [float(step) for step in range(1, 251)] + [-1.0] * 49
    assert again.id == run.id


def test_one_writer_at_a_time(run):
    with pytest.raises(RunError, match="is being written by another process"):
        Run.reopen(run.path)
    run.close()
    Run.reopen(run.path).close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_worker_that_outlives_its_parent_holds_no_lock(run):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    run.close()
    try:
        Run.reopen(run.path).close()
    finally:
        os.close(writer)
        os.waitpid(child, 0)


def test_a_run_whose_process_is_gone_is_interrupted(tmp_path):
    code = (
        "import sys; from treadle.runs import Run; run = Run.create(sys.argv[1]); print(flush=True); input()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "r")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        assert Run.open(tmp_path / "r").status == "running"
        process.send_signal(signal.SIGKILL)
    assert Run.open(tmp_path / "r").status == "interrupted"


def test_update_refuses_what_would_damage_the_run(run):
    for fields, message in (
        ({"status": "done"}, "status is 'done'; allowed are running, finished"),
        ({"id": "x"}, "'id' never changes"),
        ({"step": "many"}, "'step' is 'many'; it must be int"),
        ({"step": True}, "'step' is True"),
        ({"own": object()}, "own: .* of type object cannot be recorded"),
    ):
        with pytest.raises(RunError, match=message):
            run.update(**fields)
    assert run.status == "running"
    run.update(status="failed")
    assert run.ended is not None
    run.update(status="running")
    assert run.ended is None


def test_what_json_cannot_hold_is_an_error_that_says_where(tmp_path):
    for config, message in (
        ({"a": {"b": [1, object()]}}, r"config\['a'\]\['b'\]\[1\]: <object"),
        ({"a": {1: 2}}, r"config\['a'\]: the key 1 is a int"),
    ):
        with pytest.raises(RunError, match=message):
            Run.create(tmp_path / "run", config=config)
    assert os.listdir(tmp_path) == []


def damage(text):
    return lambda path: (path / "run.json").write_bytes(text)


def changed(**fields):
    def change(path):
        old = json.loads((path / "run.json").read_text())
        new = {name: value for name, value in {**old, **fields}.items() if value != "gone"}
        (path / "run.json").write_text(json.dumps(new))

    return change


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda path: (path / "run.json").unlink(), "there is no run.json; this is not a run folder"),
        (damage(b""), "is damaged"),
        (damage(b'{"id": "abc"'), "is damaged"),
        (damage(b"[1]"), "holds a list, not an object"),
        (damage(b"\xff\xfe"), "is damaged"),
        (damage(b"[" * 100_000), "is damaged"),
        (damage(b"{}"), "is not a run of Treadle"),
        (changed(format=99), "has format 99, newer than 1"),
        (changed(status="odd"), "status is 'odd'; allowed are"),
        (changed(created="gone"), "'created' is missing"),
        (changed(step="1"), "'step' is '1'; it must be int"),
    ],
)
def test_a_damaged_run_is_one_clear_error(run, harm, reason):
    run.close()
    harm(run.path)
    for opening in (Run.open, Run.reopen):
        with pytest.raises(RunError, match=reason) as caught:
            opening(run.path)
        assert str(run.path) in str(caught.value)


def test_a_missing_folder_and_a_file_are_clear_errors(tmp_path):
    (tmp_path / "file").write_text("x")
    for name in ("nowhere", "file"):
        with pytest.raises(RunError, match=name):
            Run.open(tmp_path / name)
    with pytest.raises(RunError, match="a run cannot be made here"):
        Run.create(tmp_path / "file" / "run")


def test_no_folder_is_used_twice(tmp_path):
    paths = []
    for _ in range(3):
        with Run.create(tmp_path / "digits") as run:
            paths.append(run.path.name)
    assert paths == ["digits", "digits-2", "digits-3"]
    Run.create(tmp_path / "digits-128").close()
    (tmp_path / "digits-4").write_text("in the way")
    assert newest_of(tmp_path / "digits") == tmp_path / "digits-3"
    assert free_path(tmp_path / "digits") == tmp_path / "digits-5"
    (tmp_path / "empty").mkdir()
    assert free_path(tmp_path / "empty") == tmp_path / "empty"
    with Run.create(tmp_path / "empty") as run:
        assert run.path == tmp_path / "empty"
    assert newest_of(tmp_path / "none") is None
    assert newest_of(tmp_path / "no" / "where") is None
    assert newest_of(tmp_path / "digits-128") == tmp_path / "digits-128"


def test_many_threads_that_want_one_name_get_one_each(tmp_path):
    start = threading.Barrier(8)

    def create(number):
        start.wait()
        return [Run.create(tmp_path / "run", name=f"{number}") for _ in range(3)]

    with ThreadPoolExecutor(8) as pool:
        runs = [run for created in pool.map(create, range(8)) for run in created]
    assert len({run.path for run in runs}) == 24
    assert {path.name for path in tmp_path.iterdir()} == {
        "run",
        *(f"run-{number}" for number in range(2, 25)),
    }
    for run in runs:
        assert Run.open(run.path).id == run.id
        run.close()


def test_many_processes_that_want_one_name_get_one_each(tmp_path):
    code = (
        "import sys; from treadle.runs import Run\nprint(flush=True); input()\n"
        "for _ in range(5): Run.create(sys.argv[1]).close()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    processes = [subprocess.Popen(command, **pipes) for _ in range(3)]
    for process in processes:
        process.stdout.readline()
    for process in processes:
        process.stdin.write(b"\n")
        process.stdin.close()
    for process in processes:
        process.stdout.close()
        assert process.wait() == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"run", *(f"run-{number}" for number in range(2, 16))}


def test_a_name_that_is_taken_at_the_last_moment_is_left_to_its_owner(tmp_path, monkeypatch):
    rename, owners = run_folders.rename_folder, []

    def too_late(source, target):
        if len(owners) < 2:
            owners.append(target)
            target.mkdir()
            (target / "file").write_text("of another")
        return rename(source, target)

    monkeypatch.setattr(run_folders, "rename_folder", too_late)
    with Run.create(tmp_path / "run") as run:
        assert run.path == tmp_path / "run-3"
    assert owners == [tmp_path / "run", tmp_path / "run-2"]
    assert all(os.listdir(owner) == ["file"] for owner in owners)
    assert len(os.listdir(tmp_path)) == 3


def test_a_failed_creation_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_folders, "rename_folder", fail)
    with pytest.raises(RunError, match="No space left on device"):
        Run.create(tmp_path / "run")
    assert os.listdir(tmp_path) == []


def test_leftovers_of_killed_creations_are_removed_when_old_and_ignored_before(tmp_path):
    for name, age in ((".run.0123456789ab.tmp", 10_000), (".run.ba9876543210.tmp", 10)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    with Run.create(tmp_path / "run") as run:
        assert run.path == tmp_path / "run"
    assert {path.name for path in tmp_path.iterdir()} == {"run", ".run.ba9876543210.tmp"}


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_failed_update_leaves_the_old_file(run, monkeypatch, function):
    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(run_files.os, function, fail)
        with pytest.raises(OSError, match="No space left"):
            run.update(step=5)
    assert Run.open(run.path).step == run.step == 0
    assert not list(run.path.glob(".run.json*"))


@pytest.mark.slow
def test_killed_while_updating_run_json_is_the_old_or_the_new_one(tmp_path):
    code = (
        "import itertools, sys; from treadle.runs import Run\n"
        "run = Run.reopen(sys.argv[1]); print(flush=True)\n"
        "for step in itertools.count(1): run.update(step=step, own='x' * step)"
    )
    Run.create(tmp_path / "run").close()
    for delay in (0.0, 0.01, 0.03, 0.08, 0.15):
        command = [sys.executable, "-c", code, str(tmp_path / "run")]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
        run = Run.reopen(tmp_path / "run")
        assert run.fields.get("own", "") == "x" * run.step  # none yet where it was killed very early
        assert not list(run.path.glob(".run.json*"))
        run.close()


def test_checkpoints_by_step_and_nothing_else(run, tmp_path):
    for name in ("step-00000010", "step-9", "step-x", "other", ".step-3"):
        (run.path / "checkpoints" / name).mkdir()
    (run.path / "checkpoints" / "step-5").write_text("a file")
    (run.path / "checkpoints" / "step-7").symlink_to(tmp_path)
    assert [path.name for path in run.checkpoints] == ["step-9", "step-00000010"]


def test_threads_may_write_at_once(run):
    def work(number):
        for step in range(100):
            run.append_steps([(f"t{number}", step, float(step))])
            if step % 10 == 0:
                run.event("e", step, thread=number)
                run.update(**{f"t{number}": step})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert all(len(run.series(f"t{number}").steps) == 100 for number in range(4))
    assert len(run.events) == 40
    assert [run.fields[f"t{number}"] for number in range(4)] == [90] * 4


def test_names_that_lead_elsewhere_are_refused(tmp_path):
    for name in ("..", "a/b", "", "/etc", "a\\b", "a\0"):
        with pytest.raises(RunError, match="is not a plain name"):
            run_folders.inside(tmp_path, name)
    assert run_folders.inside(tmp_path, "a b") == tmp_path / "a b"


def test_the_record_imports_no_torch():
    code = "import sys; import treadle.runs.listing, treadle.runs.export; print('torch' in sys.modules)"
    stub = (
        "import sys, types, importlib.util as u; m = types.ModuleType('treadle'); "
        "m.__path__ = list(u.find_spec('treadle').submodule_search_locations); sys.modules['treadle'] = m; "
    )
    done = subprocess.run([sys.executable, "-c", stub + code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
