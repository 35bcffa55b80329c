"""Workers end with what they work for, however it ends, and never keep a process from exiting."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
import weakref

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, IterableDataset

import treadle
from treadle.data import Loader


class Numbered(Dataset):
    def __len__(self):
        return 96

    def __getitem__(self, index):
        return torch.full((8,), float(index)), index % 3


class Endless(IterableDataset):
    def __iter__(self):
        number = 0
        while True:
            yield torch.full((8,), float(number)), number % 3
            number += 1


class Slow(Numbered):
    def __getitem__(self, index):
        if index >= 16:
            time.sleep(60)
        return super().__getitem__(index)


class Raising(treadle.Callback):
    def __init__(self, error):
        self.error = error

    def on_step_end(self, state):
        if state.progress.step == 3:
            raise self.error


def children():
    return {process.pid for process in multiprocessing.active_children()}


def fit(data, callback, val=None):
    task = treadle.SupervisedTask(torch.nn.Linear(8, 3), cross_entropy)
    trainer = treadle.Trainer(max_epochs=2, seed=0, progress=False, run_dir=None, callbacks=[callback])
    return trainer.fit(task, data, val)


DATA = {
    "samples": lambda: Loader(Numbered(), 16, shuffle=True, workers=2),
    "stream": lambda: Loader(Endless(), 16, workers=2),
    "DataLoader": lambda: DataLoader(Numbered(), 16, num_workers=2),
}


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failed_fit_leaves_no_workers(data, kind):
    """Also where somebody keeps the exception, and with it the loop's frames, as a notebook does."""
    before = children()
    began = time.monotonic()
    gc.disable()
    try:
        with pytest.raises(kind, match="mine") as kept:
            fit(DATA[data](), Raising(kind("mine")))
        assert children() <= before
    finally:
        gc.enable()
    assert kept.value.__traceback__ is not None
    assert time.monotonic() - began < 10  # the collector, left to it, waits for five seconds a worker


def test_a_fit_keeps_no_frames_of_its_error_alive():
    class Held:
        pass

    class Holding(treadle.Callback):
        def on_step_end(self, state):
            held = Held()
            gone.append(weakref.ref(held))
            raise RuntimeError("mine")

    gone = []
    gc.disable()
    try:
        with pytest.raises(RuntimeError, match="mine"):
            fit((torch.zeros(4, 8), torch.zeros(4, dtype=torch.long)), Holding())
        assert gone[0]() is None
    finally:
        gc.enable()


def test_workers_end_when_an_evaluation_is_cut_off():
    class Cut(treadle.Callback):
        def on_eval_batch_end(self, state):
            raise RuntimeError("mine")

    before = children()
    with pytest.raises(RuntimeError, match="mine") as kept:
        fit(DATA["samples"](), Cut(), val=DATA["samples"]())
    assert children() <= before
    assert kept.value.__traceback__ is not None


def test_closing_stops_all_that_is_being_read_and_reading_starts_anew():
    batches = Loader(Numbered(), 16, workers=2).open(0)
    before = children()
    first, second = batches.iterate(0), batches.iterate(1)
    next(first), next(second)
    assert len(children() - before) == 4
    batches.close()
    assert children() <= before
    again = batches.iterate(0)
    next(again)
    del first, second  # their processes are gone, and must not be taken for idle ones
    gc.collect()
    assert len(list(batches.iterate(1, 2))) == 4
    assert len(list(again)) == 5
    assert len(list(batches.iterate(0))) == 6
    batches.close()
    assert children() <= before


def test_workers_stuck_in_a_sample_are_not_waited_for():
    batches = Loader(Slow(), 16, workers=2).open(0)
    before = children()
    reading = batches.iterate(0)
    next(reading)
    began = time.monotonic()
    batches.close()
    assert children() <= before
    assert time.monotonic() - began < 4  # torch waits for five seconds, for each of them
    assert reading is not None


def test_workers_go_with_batches_nobody_has_any_more():
    before = children()
    batches = Loader(Numbered(), 16, workers=2).open(0)
    list(batches.iterate(0))
    assert len(children() - before) == 2
    del batches
    gc.collect()
    assert children() <= before


@pytest.mark.filterwarnings("ignore:Exception ignored")  # of torch's half-made iterator
def test_a_start_that_fails_midway_leaves_none(monkeypatch):
    started = []

    def start(process):
        if started:
            raise OSError("no more processes")
        started.append(process)
        original(process)

    original = multiprocessing.context.Process.start
    before = children()
    monkeypatch.setattr(multiprocessing.context.Process, "start", start)
    reading = Loader(Numbered(), 16, workers=2).open(0).iterate(0)
    with pytest.raises(OSError, match="no more processes") as kept:
        next(reading)
    assert started
    started[0].join(5)
    assert children() <= before
    assert kept.value.__traceback__ is not None
    del kept
    gc.collect()


BEGIN = """
    import os, signal, sys, time
    import torch, treadle
    from torch.nn.functional import cross_entropy

    torch.set_num_threads(1)

    class Numbered(torch.utils.data.Dataset):
        def __len__(self):
            return 96

        def __getitem__(self, index):
            return torch.randn(8), index % 3

    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self):
            while True:
                yield torch.randn(8), 0

    class Then(treadle.Callback):
        def on_step_end(self, state):
            if state.progress.step == 4:
                act()

    def act():
        raise RuntimeError("mine")

    def fit(data):
        trainer = treadle.Trainer(max_epochs=2, seed=0, progress=False, run_dir=None, callbacks=[Then()])
        trainer.fit(treadle.SupervisedTask(torch.nn.Linear(8, 3), cross_entropy), data)
"""

ENDINGS = {
    "uncaught": ("fit(treadle.Loader(Numbered(), 16, workers=2))", 1, "mine"),
    "uncaught in a stream": ("fit(treadle.Loader(Endless(), 16, workers=2))", 1, "mine"),
    "second Ctrl-C": (
        """
        def act():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(30)
        fit(treadle.Loader(Numbered(), 16, workers=2))
        """,
        -signal.SIGINT,
        "KeyboardInterrupt",
    ),
    "left reading": (
        """
        reading = iter(treadle.Loader(Numbered(), 16, workers=2))
        endless = iter(treadle.Loader(Endless(), 16, workers=2))
        next(reading), next(endless)
        sys.exit("left")
        """,
        1,
        "left",
    ),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_process_with_workers_exits(ending):
    code, status, said = ENDINGS[ending]
    program = textwrap.dedent(BEGIN) + textwrap.dedent(code)
    started = subprocess.Popen(
        [sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        _, errors = started.communicate(timeout=60)  # the pipe closes when the last of its workers is gone
    except subprocess.TimeoutExpired:
        os.killpg(started.pid, signal.SIGKILL)
        _, errors = started.communicate()
        pytest.fail(f"it did not exit: {errors}")
    assert started.returncode == status, errors
    assert errors.strip().splitlines()[-1].endswith(said)
    assert "DataLoader worker" not in errors
