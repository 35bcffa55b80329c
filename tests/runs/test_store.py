"""The metric store: what goes in comes out, also after a cut, a kill, and beside a reader."""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import random
import signal
import sqlite3
import struct
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.runs import Run, RunError
from treadle.runs import schema as store_schema
from treadle.runs.store import Store
from treadle.runs.writer import WritableStore

SPECIAL = [math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308, 0.1, 3.0]


def bits(values):
    return [struct.pack("<d", value) for value in values]


def content(store):
    """Everything in a store but the times."""
    return {
        "series": {
            name: (s.steps.tolist(), bits(s.values)) for name in store.names() for s in [store.series(name)]
        },
        "order": store.names(),
        "curves": {name: str(store.downsample(name, 3)) for name in store.names()},
        "epochs": [
            (row.epoch, row.step, list(row.values), bits(row.values.values())) for row in store.epochs()
        ],
        "events": [(event.kind, event.step, event.details) for event in store.events()],
    }


@pytest.mark.parametrize("count", [1, 7, 200, 201, 1000])
def test_every_float_comes_back_bit_for_bit(tmp_path, count):
    values = list(itertools.islice(itertools.cycle(SPECIAL), count))
    with Run.create(tmp_path / "run") as run:
        run.append_steps([("x", step, value) for step, value in enumerate(values)])
        run.append_epoch(1, count, {f"v{number}": value for number, value in enumerate(SPECIAL)})
    steps, found = Run.open(run.path).series("x")
    assert bits(found) == bits(values)
    assert steps.tolist() == list(range(count))
    assert (steps.dtype, found.dtype) == (np.int64, np.float64)
    assert bits(Run.open(run.path).history[f"v{number}"][0] for number in range(len(SPECIAL))) == bits(
        SPECIAL
    )


def test_headers_leave_out_what_is_not_finite(tmp_path):
    store = WritableStore(tmp_path / "m")
    store.append_steps([("x", step, math.nan if step % 3 else float(step)) for step in range(20_000)])
    store.append_steps([("none", step, math.inf) for step in range(20_000)])
    found = store.downsample("x", 10)
    assert found.count.sum() == 20_000
    assert found.finite.sum() == len(range(0, 20_000, 3))
    assert found.minimum.min() == 0
    assert found.maximum.max() == 19_998
    assert np.average(found.mean, weights=found.finite) == pytest.approx(np.mean(range(0, 20_000, 3)))
    assert np.isnan(store.downsample("none", 10).mean).all()
    store.close()


@pytest.mark.parametrize(("count", "buckets"), [(0, 4), (1, 4), (3, 4), (950, 4), (5_130, 3), (40_050, 30)])
def test_downsampling_says_the_truth_about_each_bucket(tmp_path, count, buckets):
    generator = np.random.default_rng(0)
    steps, values = np.cumsum(generator.integers(1, 5, count)), generator.normal(size=count)
    store = WritableStore(tmp_path / "m")
    names = ["x"] * count
    store.append_steps(zip(names, steps.tolist(), values.tolist(), strict=True) if count else [("x", 0, 1.0)])
    found = store.downsample("x", buckets)
    assert len(found.count) <= buckets
    assert found.count.sum() == max(count, 1)
    for number in range(len(found.count) if count else 0):
        inside = values[(steps >= found.first[number]) & (steps <= found.last[number])]
        assert len(inside) == found.count[number]
        assert found.minimum[number] == inside.min()
        assert found.maximum[number] == inside.max()
        assert found.mean[number] == pytest.approx(inside.mean(), abs=1e-12)
    store.close()


def write(store, first, last):
    """Steps first..last of a run with series of several densities, one of them with special values."""
    for step in range(first, last + 1):
        points = [("loss", step, 1 / (step + 1))]
        if step % 7 == 0:
            points.append(("rare", step, SPECIAL[step % len(SPECIAL)]))
        if step > 300:
            points += [("late", step, float(step)), ("twice", step, 1.0), ("twice", step, 2.0)]
        store.append_steps(points)
        if step % 100 == 0:
            store.append_epoch(step // 100, step, {"val/loss": float(step)})
            store.add_event("checkpoint", step, {"number": step})


def test_after_a_rewind_anywhere_the_rest_ends_like_an_uninterrupted_run():
    whole = WritableStore(":memory:")
    write(whole, 1, 500)
    expected = content(whole)
    for cut in [-1, 0, 1, 99, 100, 101, 199, 200, 201, 299, 300, 301, 302, 399, 400, 401, 499, 500, 600]:
        store = WritableStore(":memory:")
        write(store, 1, 500)
        store.rewind(cut)
        short = WritableStore(":memory:")
        write(short, 1, max(0, min(cut, 500)))
        assert content(store) == content(short), cut
        write(store, max(cut, 0) + 1, 500)
        assert content(store) == expected, cut


@settings(deadline=None, max_examples=40)
@given(st.lists(st.one_of(st.integers(1, 700), st.tuples(st.integers(0, 900))), max_size=8))
def test_any_mix_of_appends_and_rewinds_is_a_filter(actions):
    store, model, step = WritableStore(":memory:"), [], 0
    for action in actions:
        if isinstance(action, tuple):
            store.rewind(action[0])
            model = [point for point in model if point[1] <= action[0]]
            step = min(step, action[0])
        else:
            points = [("ab"[number % 2], step + number + 1, number / 3) for number in range(action)]
            step += action
            store.append_steps(points)
            model += points
    for name in "ab":
        expected = [(at, value) for known, at, value in model if known == name]
        assert (name in store.names()) == bool(expected)
        if expected:
            steps, values = store.series(name)
            assert list(zip(steps.tolist(), values.tolist(), strict=True)) == expected


def test_points_out_of_order_come_back_by_step_and_are_cut_by_step():
    store = WritableStore(":memory:")
    steps = random.Random(0).sample(range(1000), 1000)
    store.append_steps([("x", step, float(step)) for step in steps])
    assert store.series("x").values.tolist() == [float(step) for step in range(1000)]
    store.rewind(431)
    assert store.series("x").values.tolist() == [float(step) for step in range(432)]


def test_a_failing_append_leaves_the_store_as_it_was():
    store = WritableStore(":memory:")
    store.append_steps([("x", 1, 1.0)])

    def points():
        yield from (("x", step, 0.0) for step in range(2, 100_000))
        raise OSError("the source broke")

    with pytest.raises(OSError, match="the source broke"):
        store.append_steps(points())
    with pytest.raises(ValueError, match="could not convert"):
        store.append_steps([("y", 2, 1.0), ("x", 2, "many")])
    with pytest.raises(TypeError):
        store.append_steps([("x", 2.5, 1.0)])
    with pytest.raises(RunError, match="7 is not a string"):
        store.append_steps([(7, 2, 1.0)])
    assert store.names() == ["x"]
    store.append_steps([("x", 2, 2.0)])
    assert store.series("x").values.tolist() == [1.0, 2.0]


def test_an_epoch_written_twice_is_one_row_with_all_values():
    store = WritableStore(":memory:")
    store.append_epoch(1, 10, {"train/loss": 2.0, "val/loss": 3.0})
    store.append_epoch(1, 10, {"test/loss": math.inf, "val/loss": 2.5})
    assert store.epochs() == [(1, 10, {"train/loss": 2.0, "val/loss": 2.5, "test/loss": math.inf})]


def test_unknown_series_and_bad_bucket_counts_are_clear_errors():
    store = WritableStore(":memory:")
    store.append_steps([("loss", 1, 1.0), ("lr", 1, 1.0)])
    with pytest.raises(KeyError, match=r"no series 'los'; there are loss, lr"):
        store.series("los")
    with pytest.raises(ValueError, match="buckets is 0; it must be at least 1"):
        store.downsample("loss", 0)


def test_the_clock_never_goes_back_even_when_the_computers_does(tmp_path, monkeypatch):
    store = WritableStore(tmp_path / "m")
    store.append_epoch(1, 10, {})
    store.close()
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    store = WritableStore(tmp_path / "m")
    store.append_epoch(2, 20, {})
    store.flush()
    steps, epochs, times = store.clock()
    assert (np.diff(times) >= 0).all()
    assert times[0] > 1e9
    assert steps.tolist() == [10, 20, 20]
    assert epochs.tolist() == [1, 2, 2]
    store.close()


@pytest.mark.slow
def test_a_million_points_need_little_memory(tmp_path):
    store = WritableStore(tmp_path / "m")
    tracemalloc.start()
    store.append_steps((f"m{number % 5}", number // 5, 0.5) for number in range(1_000_000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30e6
    assert len(store.series("m3").steps) == 200_000
    store.close()
    assert (tmp_path / "m").stat().st_size < 20e6


WRITER = """
import sys
from treadle.runs.writer import WritableStore
store = WritableStore(sys.argv[1])
step = int(sys.argv[2])
print("ready", flush=True)
while True:
    step += 1
    store.append_steps([("a", step, step / 7), ("b", step, float("nan"))])
    if step % 50 == 0:
        store.append_epoch(step // 50, step, {"x": step})
    if step % 20 == 0:
        store.flush()
        print(step, flush=True)
"""


def start_writer(path, step=0):
    command = [sys.executable, "-c", WRITER, str(path), str(step)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def kill(process):
    process.send_signal(signal.SIGKILL)
    said = process.stdout.read().split()
    process.stdout.close()
    process.wait()
    return int(said[-1]) if said else 0


def check_whole(store, at_least):
    """All points up to some step, each once; returns the step."""
    steps, values = store.series("a")
    last = int(steps[-1])
    assert last >= at_least
    assert steps.tolist() == list(range(1, last + 1))
    assert values.tolist() == [step / 7 for step in range(1, last + 1)]
    # Each question sees a moment of its own, and the writer may have gone on since the one before.
    others = store.series("b").steps.tolist()
    assert others == list(range(1, len(others) + 1))
    assert len(others) >= last
    epochs = [row.epoch for row in store.epochs()]
    assert epochs == list(range(1, len(epochs) + 1))
    return last


@pytest.mark.slow
def test_killed_at_random_moments_nothing_flushed_is_lost_and_nothing_doubled(tmp_path):
    path, step, chance = tmp_path / "metrics.sqlite", 0, random.Random(1)
    for _ in range(6):
        process = start_writer(path, step)
        time.sleep(chance.uniform(0.02, 0.25))
        flushed = kill(process)
        check_whole(Store(path), max(flushed, step))
        with sqlite3.connect(path) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()
        store = WritableStore(path)
        last = check_whole(store, max(flushed, step))
        assert len(store.series("b").steps) == last  # one append is one transaction
        step = chance.randint(last // 2, last)  # as a resume from an older checkpoint
        store.rewind(step)
        assert check_whole(store, step) == step
        store.close()


def test_a_reader_sees_whole_moments_while_another_process_writes(tmp_path):
    path = tmp_path / "metrics.sqlite"
    process = start_writer(path)
    try:
        assert process.stdout.readline() == "20\n"
        seen = [check_whole(Store(path), 20) for _ in range(20) if not time.sleep(0.01)]
        assert seen == sorted(seen)
        assert seen[-1] > seen[0]
    finally:
        kill(process)


def snapshot_of(folder, but=()):
    return {
        path.name: (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in folder.iterdir()
        if not path.name.endswith(but)
    }


@pytest.mark.parametrize("leftovers", ["none", "log and index", "log alone"])
def test_reading_changes_nothing_in_the_folder(tmp_path, leftovers):
    folder = tmp_path / "run"
    folder.mkdir()
    path = folder / "metrics.sqlite"
    if leftovers == "none":
        store = WritableStore(path)
        store.append_steps([("a", 1, 1.0)])
        store.close()
        assert [entry.name for entry in folder.iterdir()] == ["metrics.sqlite"]
    else:
        process = start_writer(path)
        process.stdout.readline()
        kill(process)
        assert path.with_name("metrics.sqlite-wal").stat().st_size
        if leftovers == "log alone":
            path.with_name("metrics.sqlite-shm").unlink()
    # The index of a log is memory that SQLite shares between processes; readers leave their marks in it.
    before = snapshot_of(folder, but="-shm"), sorted(os.listdir(folder))
    for _ in range(2):
        assert len(Store(path).series("a").steps) > 0
        assert (snapshot_of(folder, but="-shm"), sorted(os.listdir(folder))) == before


@pytest.mark.parametrize("leftovers", ["none", "log and index", "log alone"])
def test_a_folder_that_may_only_be_read_can_be_read(tmp_path, leftovers):
    folder = tmp_path / "run"
    folder.mkdir()
    path = folder / "metrics.sqlite"
    process = start_writer(path)
    process.stdout.readline()
    kill(process)
    if leftovers == "none":
        WritableStore(path).close()
    elif leftovers == "log alone":
        path.with_name("metrics.sqlite-shm").unlink()
    for place in (*folder.iterdir(), folder):
        place.chmod(0o555 if place.is_dir() else 0o444)
    # Permissions do not bind the superuser, so the reading is done by nobody.
    code = (
        "import os, sys; import treadle.runs.store as s\n"
        "os.getuid() or (os.setgid(65534), os.setuid(65534))\n"
        "print(len(s.Store(sys.argv[1]).series('a').steps))"
    )
    for parent in (tmp_path, *tmp_path.parents[:3]):
        parent.chmod(parent.stat().st_mode | 0o055)
    try:
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) >= 20
    finally:
        folder.chmod(0o755)


def test_without_a_write_ahead_log_everything_works_too(tmp_path, monkeypatch):
    monkeypatch.setattr(store_schema, "_file_system", lambda path: "nfs4")
    path = tmp_path / "m"
    store = WritableStore(path)
    write(store, 1, 50)
    store.flush()
    assert not path.with_name("m-wal").exists()
    assert len(Store(path).series("loss").steps) == 50
    store.rewind(10)
    assert len(Store(path).series("loss").steps) == 10
    store.close()


def test_a_journal_that_a_kill_left_is_rolled_back_on_a_copy(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    path = folder / "metrics.sqlite"
    code = (
        "import os, signal, sys; from treadle.runs import schema, writer\n"
        "schema._file_system = lambda path: 'nfs4'\n"
        "store = writer.WritableStore(sys.argv[1])\n"
        "store.append_steps([('a', step, 0.5) for step in range(1, 5000)])\n"
        "store._connection.execute('PRAGMA cache_size = 5')  # changes reach the file early\n"
        "def points():\n"
        "    yield from [('a', step, 0.5) for step in range(5000, 200_000)]\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "store.append_steps(points())"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == -signal.SIGKILL
    assert path.with_name("metrics.sqlite-journal").stat().st_size
    before = snapshot_of(folder)
    assert len(Store(path).series("a").steps) == 4999
    assert snapshot_of(folder) == before
    store = WritableStore(path)
    assert len(store.series("a").steps) == 4999
    store.close()


def test_a_full_disk_is_a_clear_error_and_costs_only_what_did_not_fit(tmp_path):
    store = WritableStore(tmp_path / "m")
    store.append_steps([("x", 1, 1.0)])
    store._connection.execute("PRAGMA max_page_count = 40")
    with pytest.raises(RunError, match=r"m: cannot be written: database or disk is full"):
        store.append_steps([("x", step, 1.0) for step in range(2, 200_000)])
    assert store.series("x").steps.tolist() == [1]
    store.append_steps([("x", 2, 1.0)])
    assert store.series("x").steps.tolist() == [1, 2]
    store.close()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(b"not a database, far from it" * 100), "cannot be read"),
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(b""), "is not a metric store"),
    ],
)
def test_a_damaged_file_is_a_clear_error(tmp_path, damage, reason):
    path = tmp_path / "metrics.sqlite"
    store = WritableStore(path)
    store.append_steps([("x", 1, 1.0)])
    store.close()
    damage(path)
    with pytest.raises(RunError, match=reason) as caught:
        Store(path).names()
    assert str(path) in str(caught.value)


def test_a_newer_format_is_refused(tmp_path):
    path = tmp_path / "m"
    WritableStore(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    for opening in (lambda: Store(path).names(), lambda: WritableStore(path)):
        with pytest.raises(RunError, match="format 99, newer than 1"):
            opening()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_cannot_write(tmp_path):
    store = WritableStore(tmp_path / "m")
    child = os.fork()
    if child == 0:
        try:
            store.append_steps([("x", 1, 1.0)])
        except RunError:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    store.close()


def test_paths_with_odd_characters(tmp_path):
    path = Path(tmp_path) / "a?b#c%20 ü"
    store = WritableStore(path)
    store.append_steps([("x", 1, 1.0)])
    store.close()
    assert Store(path).names() == ["x"]


def test_points_of_a_series_that_is_not_there_are_a_clear_error(tmp_path):
    with Run.create(tmp_path / "run") as run:
        run.append_steps([("loss", step, 1.0) for step in range(3)])
    with sqlite3.connect(tmp_path / "run" / "metrics.sqlite") as connection:
        connection.execute("UPDATE tail SET series = 77")
    connection.close()
    for read in (lambda: Run.open(tmp_path / "run").points_at(1), lambda: Run.reopen(tmp_path / "run")):
        with pytest.raises(RunError, match=r"metrics\.sqlite.*series 77"):
            read()


def test_a_gap_in_the_steps_costs_nothing(tmp_path: Path) -> None:
    """The steps that could lie in it are not counted; 199 neighbours, and one at the end of time."""
    with Run.create(tmp_path / "run", name="run", config={}, environment={}) as run:
        steps = [*range(199), 10**15, *range(10**15 + 1, 10**15 + 201)]
        run.append_steps(("loss", step, float(step % 7)) for step in steps)
        series = run.series("loss")
        assert series.steps.tolist() == steps
        assert series.values.tolist() == [float(step % 7) for step in steps]


def test_curves_of_unequal_lengths_are_refused(tmp_path: Path) -> None:
    with Run.create(tmp_path / "run", name="run", config={}, environment={}) as run:
        run.append_curves({"loss": ([1, 2], [0.5, 0.25])})
        with pytest.raises(RunError, match="'loss' has 2 steps and 1 values"):
            run.append_curves({"loss": ([3, 4], [0.5])})
        assert run.series("loss").values.tolist() == [0.5, 0.25]
