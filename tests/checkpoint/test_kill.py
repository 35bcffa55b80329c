"""Whatever moment a save dies at, the folder holds exactly the old state or the new one."""

import errno
import os
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from treadle.checkpoint import CheckpointError, Writer, files, list_checkpoints, newest, read, rewind, write


class Death(BaseException):
    """The process is gone: nothing it would have done afterwards is done."""


class Disk:
    """Stands in for `os` in files.py: counts the calls that change the disk; dies or fails at one of them."""

    changing = frozenset({"write", "fsync", "rename", "mkdir", "unlink", "rmdir", "open"})

    def __init__(self, at=None, how="before", lasting=False):
        self.at, self.how, self.lasting = at, how, lasting
        self.calls = []
        self.names = {}

    def __getattr__(self, name):
        real = getattr(os, name)
        if name not in self.changing:
            return real

        def call(*arguments, **options):
            if name == "open" and not arguments[1] & os.O_CREAT:
                return self.remember(real(*arguments, **options), arguments[0])
            self.calls.append((name, self.names.get(arguments[0], arguments[0])))
            number = len(self.calls) - 1
            if self.at is None or number < self.at or (number > self.at and not self.lasting):
                result = real(*arguments, **options)
                return self.remember(result, arguments[0]) if name == "open" else result
            if isinstance(self.how, int):
                raise OSError(self.how, os.strerror(self.how))
            if number == self.at and self.how == "after":
                real(*arguments, **options)
            if number == self.at and self.how == "halfway" and name == "write":
                real(arguments[0], arguments[1][: len(arguments[1]) // 2])
            raise Death

        return call

    def remember(self, descriptor, path):
        self.names[descriptor] = path
        return descriptor


def state_of(value):
    return {
        "model": {"a": torch.full((4,), float(value)), "b": torch.full((2,), float(value))},
        "value": value,
    }


def value_in(folder):
    """The value of the newest checkpoint, all of which must be of one piece; None without one."""
    found = newest(folder)
    if found is None:
        return None
    value = found.contents["value"]
    assert all(torch.all(tensor == value) for tensor in found.contents["model"].values())
    return value


def names_in(folder):
    return sorted(name for name in os.listdir(folder) if name != files.LOCK_NAME)


def prepare_nothing(folder):
    pass


def prepare_old(folder):
    write(folder, 1, state_of(1))


def prepare_aside(folder):
    """What a process leaves that died between the two renames of a replacement."""
    prepare_old(folder)
    (folder / "step-00000001").rename(folder / (".step-00000001.old-" + "0" * 16))
    (folder / (".step-00000001.new-" + "1" * 16)).mkdir()


def prepare_aside_and_damaged(folder):
    prepare_aside(folder)
    (write(folder / "other", 1, state_of(9))).rename(folder / "step-00000001")
    files.remove_tree(folder / "other")
    (folder / "step-00000001" / "state.json").write_bytes(b"")


def prepare_three(folder):
    for step in (1, 2, 3):
        write(folder, step, state_of(step), score=float(step))


# what there is before, what is done, and what may be newest afterwards: the old or the new
SCENES = {
    "first": (prepare_nothing, lambda folder: write(folder, 2, state_of(2)), (None, 2)),
    "next": (prepare_old, lambda folder: write(folder, 2, state_of(2)), (1, 2)),
    "same step again": (prepare_old, lambda folder: write(folder, 1, state_of(2)), (1, 2)),
    "after a dead replacement": (prepare_aside, lambda folder: write(folder, 2, state_of(2)), (1, 2)),
    "the same again after one": (prepare_aside, lambda folder: write(folder, 1, state_of(2)), (1, 2)),
    "after one with damage": (prepare_aside_and_damaged, lambda f: write(f, 1, state_of(2)), (1, 2)),
    "retention": (prepare_three, lambda f: Writer(f, keep_last=1).save(4, state_of(4), score=4.0), (3, 4)),
    "rewind": (prepare_three, lambda folder: rewind(folder, 1), (3, 2, 1)),
}


def calls_of(tmp_path, monkeypatch, scene):
    prepare, act, _ = SCENES[scene]
    folder = tmp_path / "counted"
    folder.mkdir()
    prepare(folder)
    disk = Disk()
    with monkeypatch.context() as patch:
        patch.setattr(files, "os", disk)
        act(folder)
    return [name for name, _ in disk.calls]


def act_on(disk, act, folder, monkeypatch, expected):
    """Act on a disk that dies or fails; return what was raised, which must be of the expected kind."""
    with monkeypatch.context() as patch:
        patch.setattr(files, "os", disk)
        try:
            act(folder)
        except expected as error:
            return error
    return None


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("how", ["before", "after", "halfway"])
def test_death_at_every_call_leaves_the_old_or_the_new(tmp_path, monkeypatch, scene, how):
    prepare, act, allowed = SCENES[scene]
    seen = []
    for number, call in enumerate(calls_of(tmp_path, monkeypatch, scene)):
        if how == "halfway" and call != "write":
            continue
        folder = tmp_path / str(number)
        folder.mkdir()
        prepare(folder)
        assert act_on(Disk(number, how, lasting=True), act, folder, monkeypatch, Death) is not None
        if "damage" not in scene:
            for path in folder.glob("step-*"):
                read(path)  # a name that is there is a whole checkpoint
        seen.append(value_in(folder))
        assert seen[-1] in allowed
        assert value_in(folder) == seen[-1]  # looking changes nothing
        act(folder)  # the next process does the same again, and cleans up
        assert value_in(folder) == allowed[-1]
        assert all(name.startswith("step-") for name in names_in(folder))
    order = [allowed.index(value) for value in seen]
    assert order == sorted(order)  # once the new one is there, it stays


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize(
    ("code", "lasting"),
    [(errno.ENOSPC, True), (errno.EIO, False)],
    ids=["the disk is full", "one error"],
)
def test_failure_at_every_call_is_an_error_and_leaves_the_old_or_the_new(
    tmp_path, monkeypatch, scene, code, lasting
):
    prepare, act, allowed = SCENES[scene]
    for number in range(len(calls_of(tmp_path, monkeypatch, scene))):
        folder = tmp_path / str(number)
        folder.mkdir()
        prepare(folder)
        failed = act_on(Disk(number, code, lasting), act, folder, monkeypatch, CheckpointError)
        value = value_in(folder)
        assert value in allowed
        assert failed is None or isinstance(failed.__cause__, OSError)
        assert failed or value == allowed[-1]  # what did not fail is done
        act(folder)
        assert value_in(folder) == allowed[-1]
        assert all(name.startswith("step-") for name in names_in(folder))


@pytest.mark.parametrize("scene", ["first", "next", "same step again"])
def test_everything_is_synced_before_the_commit_and_the_commit_after(tmp_path, monkeypatch, scene):
    prepare, act, _ = SCENES[scene]
    prepare(tmp_path)
    disk = Disk()
    monkeypatch.setattr(files, "os", disk)
    act(tmp_path)
    commit = next(i for i, (name, path) in enumerate(disk.calls) if name == "rename" and ".new-" in str(path))
    temporary = disk.calls[commit][1]
    before = [path for name, path in disk.calls[:commit] if name == "fsync"]
    expected = [temporary / name for name in os.listdir(next(tmp_path.glob("step-*")))]
    assert len(expected) == 4
    assert set(expected) | {temporary} <= set(before)
    assert before[-1] == temporary
    assert disk.calls[commit + 1] == ("fsync", tmp_path)
    last_write = max(i for i, (name, _) in enumerate(disk.calls) if name == "write")
    assert last_write < commit
    removed = [i for i, (name, _) in enumerate(disk.calls) if name in ("unlink", "rmdir")]
    assert all(i > commit + 1 for i in removed)


def test_only_names_of_our_own_are_tidied(tmp_path):
    strangers = [".step-1.new-x", ".step-00000001.new-short", "step-1", "step-000000001", ".tmp", "notes.txt"]
    for name in strangers:
        (tmp_path / name).mkdir()
    (tmp_path / (".step-00000001.new-" + "a" * 16)).mkdir()
    write(tmp_path, 1, state_of(1))
    assert names_in(tmp_path) == sorted([*strangers, "step-00000001"])


def test_a_link_among_leftovers_is_not_followed(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious").write_text("kept")
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / (".step-00000001.new-" + "a" * 16)).symlink_to(tmp_path / "mine")
    (folder / (".step-00000001.new-" + "b" * 16)).mkdir()
    (folder / (".step-00000001.new-" + "b" * 16) / "link").symlink_to(tmp_path / "mine")
    write(folder, 1, state_of(1))
    assert names_in(folder) == ["step-00000001"]
    assert (tmp_path / "mine" / "precious").read_text() == "kept"


def test_space_is_looked_at_before_anything_is_written(tmp_path, monkeypatch):
    write(tmp_path, 1, state_of(1))
    monkeypatch.setattr(files, "free_bytes", lambda path: 1 << 20)
    with pytest.raises(CheckpointError, match=r"needs 9,\d{3},\d{3} bytes, 1,048,576 are free"):
        write(tmp_path, 2, {"model": {"a": torch.zeros(2_000_000)}})
    assert names_in(tmp_path) == ["step-00000001"]


def test_a_folder_held_by_another_process_is_waited_for(tmp_path, monkeypatch):
    holder = (
        "import fcntl, sys, time; file = open(sys.argv[1], 'w'); "
        "fcntl.lockf(file, fcntl.LOCK_EX); print(flush=True); time.sleep(60)"
    )
    tmp_path.joinpath("c").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", holder, tmp_path / "c" / files.LOCK_NAME], stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        with pytest.raises(CheckpointError, match="another process"), files.locked(tmp_path / "c", 0.1):
            pass
        process.kill()
    write(tmp_path / "c", 1, state_of(1))  # a lock dies with its process


VICTIM = """
    import os, random, signal, sys, time
    import torch
    from treadle.checkpoint import BackgroundWriter, newest

    torch.set_num_threads(1)

    def train(folder, pipe):
        found = newest(folder)
        step = 0 if found is None else found.step
        weight = torch.full((300_000,), float(step))
        report = lambda commit: os.write(pipe, b"%d\\n" % commit.step)
        with BackgroundWriter(folder, keep_last=2, on_commit=report) as writer:
            while True:
                weight += 1
                step += 1
                writer.save(step if step % 5 else step - 1, {"model": {"w": weight}, "step": step})

    random.seed(int(sys.argv[2]))
    for life in range(10):
        here, there = os.pipe()
        child = os.fork()
        if child == 0:
            train(sys.argv[1], there)
        os.close(there)
        time.sleep(random.uniform(0.01, 0.25))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with open(here) as pipe:
            reported = [int(line) for line in pipe.read().splitlines()]
        found = newest(sys.argv[1])
        assert reported == [] or found.step >= reported[-1], (found.step, reported)
        if found is not None:
            assert found.skipped == []
            assert found.contents["step"] - found.step in (0, 1)
            assert torch.all(found.contents["model"]["w"] == found.contents["step"])
    print(found.step)
"""


def test_ten_lives_that_end_with_sigkill(tmp_path):
    program = tmp_path / "victim.py"
    program.write_text(textwrap.dedent(VICTIM))
    command = [sys.executable, program, tmp_path / "checkpoints", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10
    with suppress(FileNotFoundError):
        assert len(list_checkpoints(Path(tmp_path / "checkpoints"))) <= 4
