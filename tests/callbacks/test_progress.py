"""What a person sees while a run goes on: in a file, in a terminal, in a notebook."""

from __future__ import annotations

import io
import math
import re
import subprocess
import sys
import timeit
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from torch.nn.functional import cross_entropy

import treadle
from treadle.callbacks import Progress, progress_bar
from treadle.callbacks.live_progress import NotebookProgress, TerminalProgress
from treadle.callbacks.pace import clock_text, duration_text, number_text
from treadle.metrics import Accuracy

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


class FakeClock:
    """A clock that only moves when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def example_state(**changes: Any) -> Any:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.125)
    values: dict[str, Any] = {
        "is_main": True,
        "progress": SimpleNamespace(step=0, epoch=0, batch=0, samples=0),
        "mode": "train",
        "accumulate": 1,
        "max_epochs": 2,
        "max_steps": None,
        "steps_per_epoch": 3,
        "total_steps": 6,
        "eval_batches": 2,
        "results": {},
        "latest": {},
        "optimizers": {"optimizer": optimizer},
        "stop_reason": None,
        "exception": None,
    }
    return SimpleNamespace(**{**values, **changes})


def step(progress: Progress, state: Any, clock: FakeClock, seconds: float = 1.0) -> None:
    clock.now += seconds
    state.progress.step += 1
    state.progress.batch += state.accumulate
    state.progress.samples += 32
    state.latest["train/loss"] = 1.0 / state.progress.step
    progress.on_step_end(state)


@contextmanager
def evaluation(progress: Progress, state: Any, clock: FakeClock) -> Iterator[None]:
    state.mode = "val"
    progress.on_eval_start(state)
    for _ in range(2):
        clock.now += 1.0
        progress.on_eval_batch_end(state)
    state.results["val/loss"] = 0.25
    yield
    progress.on_eval_end(state)
    state.mode = "train"


def run(progress: Progress, state: Any, clock: FakeClock, seconds: float = 1.0) -> None:
    """Two epochs of three steps, each with an evaluation, as the loops fire the hooks."""
    progress.on_fit_start(state)
    for epoch in (1, 2):
        progress.on_epoch_start(state)
        for _ in range(3):
            step(progress, state, clock, seconds)
        state.progress.epoch, state.progress.batch = epoch, 0
        state.results["train/loss"] = 1.0 / epoch
        with evaluation(progress, state, clock):
            pass
        progress.on_epoch_end(state)
    state.stop_reason = "max_epochs=2 reached"
    progress.on_cleanup(state)


def plain(**settings: Any) -> tuple[Progress, io.StringIO, FakeClock]:
    stream, clock = io.StringIO(), FakeClock()
    return Progress(Console(file=stream, width=80, **settings), clock), stream, clock


def terminal(**settings: Any) -> tuple[TerminalProgress, io.StringIO, FakeClock]:
    stream, clock = io.StringIO(), FakeClock()
    console = Console(file=stream, width=80, height=24, force_terminal=True, _environ={}, **settings)
    return TerminalProgress(console, clock), stream, clock


def without_escapes(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).replace("\r", "")


def players(**settings: Any) -> Any:
    rates = {"critic": 0.5, "generator": 0.0001}
    parameter = torch.nn.Parameter(torch.ones(1))
    return example_state(
        optimizers={k: torch.optim.SGD([parameter], lr=v) for k, v in rates.items()}, **settings
    )


def test_rates_of_several_optimizers_have_their_names() -> None:
    progress, stream, clock = plain()
    run(progress, players(), clock)
    line = "epoch 1/2  step 3  train/loss 1.000  val/loss 0.2500  lr/critic 0.5  lr/generator 0.0001  5.00 s"
    assert line in stream.getvalue().splitlines()
    progress, stream, clock = terminal()
    run(progress, players(), clock)
    shown = without_escapes(stream.getvalue())
    assert "loss 1.000  lr/critic 0.5  lr/generator 0.0001" in shown
    head = next(line[line.index("epoch     step") :] for line in shown.splitlines() if "     step" in line)
    values = next(line for line in shown.splitlines() if line.startswith("    1        3  train   "))
    for name, value in (("lr/critic", "0.5"), ("lr/generator", "0.0001")):
        assert values[: head.index(name) + len(name)].endswith(f" {value}")


def test_plain_lines_are_one_for_each_epoch_with_a_start_and_a_stop() -> None:
    progress, stream, clock = plain()
    run(progress, example_state(), clock)
    assert stream.getvalue().splitlines() == [
        "Training: 2 epochs of 3 steps",
        "epoch 1/2  step 3  train/loss 1.000  val/loss 0.2500  lr 0.125  5.00 s",
        "epoch 2/2  step 6  train/loss 0.5000  val/loss 0.2500  lr 0.125  5.00 s",
        "Stopped after 2 epochs, 6 steps: max_epochs=2 reached",
    ]


def test_a_long_epoch_gives_a_sign_of_life() -> None:
    progress, stream, clock = plain()
    run(progress, example_state(), clock, seconds=20.0)
    lines = stream.getvalue().splitlines()
    assert lines[1] == ("epoch 1/2  step 2/3  loss 0.5000  0:40, 1:20 left"), (
        "the second step is the first one 30 seconds in; one mark gives no speed yet"
    )
    assert len(lines) == 6


def test_an_evaluation_inside_an_epoch_has_a_line_of_its_own() -> None:
    progress, stream, clock = plain()
    state = example_state()
    progress.on_fit_start(state)
    progress.on_epoch_start(state)
    step(progress, state, clock)
    with evaluation(progress, state, clock):
        pass
    progress.on_step_end(state)
    step(progress, state, clock)
    assert stream.getvalue().splitlines()[1] == "step 1  val/loss 0.2500"
    state.results["train/loss"] = 0.5
    progress.on_epoch_end(state)
    assert "val" not in stream.getvalue().splitlines()[-1], "a stale evaluation is not the epoch's"


def test_a_resumed_run_says_from_where() -> None:
    progress, stream, _ = plain()
    state = example_state(progress=SimpleNamespace(step=4, epoch=1, batch=1, samples=128))
    progress.on_fit_start(state)
    progress.on_epoch_start(state)
    assert stream.getvalue() == "Going on after 1 epoch, 4 steps: 2 epochs of 3 steps\n"
    progress.going_on(state, progress._clock())
    assert "epoch 2/2  step 1/3" in stream.getvalue()


def test_runs_by_steps_and_without_a_length() -> None:
    progress, stream, _ = plain()
    state = example_state(max_epochs=None, max_steps=1000, steps_per_epoch=None, total_steps=None)
    progress.on_fit_start(state)
    progress.on_epoch_start(state)
    progress.going_on(state, progress._clock())
    assert stream.getvalue().splitlines() == ["Training: 1,000 steps", "epoch 1  step 0  0:00"]


def test_the_stop_line_names_what_went_wrong() -> None:
    progress, stream, _ = plain()
    state = example_state(exception=ValueError("bad batch"))
    progress.on_fit_start(state)
    progress.on_cleanup(state)
    assert stream.getvalue().splitlines()[-1] == "Failed after 0 epochs, 0 steps: ValueError: bad batch"


@pytest.mark.parametrize("make", [plain, terminal])
def test_other_processes_are_silent(make: Any) -> None:
    progress, stream, clock = make()
    run(progress, example_state(is_main=False), clock)
    assert stream.getvalue() == ""


def test_brackets_in_values_are_not_markup() -> None:
    progress, stream, _ = plain()
    state = example_state(exception=ValueError("shape [bold] :smile:"))
    progress.on_fit_start(state)
    progress.on_cleanup(state)
    assert stream.getvalue().splitlines()[-1].endswith("shape [bold] :smile:")


def test_the_terminal_has_bars_and_two_rows_an_epoch() -> None:
    progress, stream, clock = terminal()
    run(progress, example_state(), clock)
    text = without_escapes(stream.getvalue())
    assert "epoch     step               loss         lr     time" in text
    assert "    1        3  train       1.000      0.125   5.00 s" in text
    assert "                val        0.2500\n" in text
    assert text.count("Stopped after 2 epochs, 6 steps: max_epochs=2 reached") == 1
    assert "step 2/3" in text
    assert "32 samples/s" in text
    assert "val 1/2" in text
    assert re.search(r"epoch 1/2 +[━╸╺ ]+ +0:02, 0:04 left", text)
    assert "loss 0.5000  lr 0.125" in text
    drawn = [without_escapes(line) for line in re.split(r"[\r\n]", stream.getvalue())]
    assert max(map(len, drawn)) == 80


def test_the_cursor_comes_back_and_output_is_given_back() -> None:
    progress, stream, clock = terminal()
    before = sys.stdout
    state = example_state()
    progress.on_fit_start(state)
    progress.on_epoch_start(state)
    step(progress, state, clock)
    assert stream.getvalue().rfind(HIDE) > stream.getvalue().rfind(SHOW)
    state.exception = RuntimeError("stop here")
    progress.on_cleanup(state)
    progress.on_cleanup(state)  # a second time does no harm
    assert stream.getvalue().rfind(SHOW) > stream.getvalue().rfind(HIDE)
    assert sys.stdout is before
    assert without_escapes(stream.getvalue()).count("Failed after") == 1


def test_bars_under_new_rows_are_new_too() -> None:
    progress, stream, clock = terminal()
    state = example_state(max_epochs=9, total_steps=9, steps_per_epoch=1)
    progress.on_fit_start(state)
    for epoch in range(1, 5):
        progress.on_epoch_start(state)
        step(progress, state, clock)
        state.progress.epoch, state.progress.batch = epoch, 0
        state.results["train/loss"] = 1.0
        progress.on_epoch_end(state)
    last = without_escapes(stream.getvalue()[stream.getvalue().rfind("epoch ") :])
    assert last.startswith("epoch 4/9")
    assert "    3        3  train" in without_escapes(stream.getvalue())
    progress.on_cleanup(state)


def test_what_a_user_prints_appears_above_the_bars() -> None:
    progress, stream, clock = terminal()
    state = example_state()
    progress.on_fit_start(state)
    progress.on_epoch_start(state)
    step(progress, state, clock)
    print("a word from the user")
    progress.on_cleanup(state)
    assert "a word from the user\n" in without_escapes(stream.getvalue())


def test_short_evaluations_leave_nothing_and_long_ones_a_bar_only_while_they_run() -> None:
    progress, stream, clock = terminal()
    state = example_state(mode="test")
    progress.on_eval_start(state)
    progress.on_eval_batch_end(state)
    progress.on_eval_end(state)
    assert stream.getvalue() == ""
    progress.on_predict_start(state)
    clock.now += 1.0
    state.mode = "predict"
    progress.on_predict_batch_end(state)
    progress.on_predict_end(state)
    assert "predict 1/2" in without_escapes(stream.getvalue())
    end = stream.getvalue()[stream.getvalue().rfind(SHOW) :]
    assert HIDE not in end
    assert end.count("\x1b[2K") == 1, "the bar's one line is erased"


def test_more_metrics_than_fit_become_lines() -> None:
    progress, stream, clock = terminal()
    state = example_state()
    state.results.update({f"train/metric_number_{i}": float(i) for i in range(8)})
    run(progress, state, clock)
    text = without_escapes(stream.getvalue()).replace("\n", "")
    assert "train/metric_number_7 7.000" in text


def test_a_run_without_a_known_end_still_has_a_display() -> None:
    progress, stream, clock = terminal()
    run(progress, example_state(max_epochs=None, steps_per_epoch=None, total_steps=None), clock)
    assert "left" not in without_escapes(stream.getvalue())


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, clock = io.StringIO(), FakeClock()
    console = Console(file=stream, width=80, force_terminal=True, _environ={"NO_COLOR": "1"})
    run(TerminalProgress(console, clock), example_state(), clock)
    assert not re.search(r"\x1b\[3[0-9]", stream.getvalue())
    coloured, other, clock = terminal()
    run(coloured, example_state(), clock)
    assert re.search(r"\x1b\[3[0-9]", other.getvalue())


def test_drawing_is_throttled_by_the_clock_and_by_what_it_costs() -> None:
    progress, _, clock = terminal()
    state = example_state()
    drawn: list[float] = []

    def slow(state: Any, now: float) -> None:
        drawn.append(now)
        clock.now += 0.01

    progress.going_on = slow  # type: ignore[method-assign]
    progress.on_fit_start(state)
    progress.on_epoch_start(state)
    for _ in range(1000):
        step(progress, state, clock, seconds=0.01)
    # Ten seconds of steps; drawing costs 10 ms, a fiftieth of the half second between two.
    assert 18 <= len(drawn) <= 21


def test_a_step_that_is_not_due_costs_next_to_nothing() -> None:
    progress = Progress(Console(file=io.StringIO()))
    state = example_state()
    progress.on_fit_start(state)
    hook = progress.on_step_end
    best = min(timeit.repeat(lambda: hook(state), number=20_000, repeat=5)) / 20_000
    assert best < 2e-6, "0.1 us where it was measured; a busy machine is given room"


def test_the_device_is_never_read() -> None:
    class Unreadable(torch.Tensor):
        def __float__(self) -> float:
            raise AssertionError("read")

    for make in (plain, terminal):
        progress, stream, clock = make()
        state = example_state()
        state.loss = torch.ones(()).as_subclass(Unreadable)
        state.optimizers["optimizer"].param_groups[0]["lr"] = SimpleNamespace(is_cpu=False)
        run(progress, state, clock)
        assert "lr 0" not in stream.getvalue()


def test_the_display_fits_where_the_output_goes() -> None:
    assert type(progress_bar(Console(file=io.StringIO()))) is Progress
    assert type(progress_bar(Console(force_terminal=True, _environ={}))) is TerminalProgress
    assert type(progress_bar(Console(force_terminal=True, _environ={"TERM": "dumb"}))) is Progress
    assert type(progress_bar(Console(force_jupyter=True))) is NotebookProgress


def test_a_notebook_gets_one_cell_that_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    module = ModuleType("IPython.display")
    curves: list[str] = []
    handles = [SimpleNamespace(update=shown.append), SimpleNamespace(update=curves.append)]
    record = treadle.Run.create(None)
    record.append_epoch(1, 3, {"train/loss": 0.5, "val/loss": 0.6})
    record.append_epoch(2, 6, {"train/loss": 0.3, "val/loss": 0.5})

    def display(thing: Any, display_id: bool = False) -> Any:
        return handles.pop(0) if display_id else None

    module.display = display  # type: ignore[attr-defined]
    module.HTML = lambda text: text  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    clock = FakeClock()
    run(
        NotebookProgress(Console(file=io.StringIO(), force_jupyter=True), clock),
        example_state(run=record),
        clock,
    )
    assert len(curves) == 2  # one picture after each epoch, in place of the one before
    assert curves[-1].count("<polyline") == 2
    assert all(hasattr(thing, "_repr_mimebundle_") for thing in shown)

    def text(thing: Any) -> str:
        stream = io.StringIO()
        Console(file=stream, width=100).print(thing)
        return stream.getvalue()

    assert any("step 2/3" in text(thing) for thing in shown)
    last = text(shown[-1])
    assert "val        0.2500" in last
    assert "max_epochs=2 reached" in last
    assert "━" not in last


def test_numbers_and_times_are_short() -> None:
    assert [number_text(v) for v in (0.5, 12345.678, 1e-7, math.nan, -math.inf, 0.0)] == [
        "0.5000",
        "1.235e+04",
        "1.000e-07",
        "nan",
        "-inf",
        "0.000",
    ]
    assert [clock_text(v) for v in (0.4, 65, 3661)] == ["0:00", "1:05", "1:01:01"]
    assert [duration_text(v) for v in (0.041, 65)] == ["0.04 s", "1:05"]


@pytest.mark.parametrize("make", [plain, terminal])
def test_a_real_run_ends_with_its_reason(make: Any) -> None:
    progress, stream, _ = make()
    progress._clock = __import__("time").monotonic
    task = treadle.SupervisedTask(
        torch.nn.Linear(4, 3), loss=cross_entropy, metrics={"accuracy": Accuracy()}, lr=0.1
    )
    data = (torch.randn(20, 4), torch.randint(0, 3, (20,)))
    trainer = treadle.Trainer(
        max_epochs=2, run_dir=None, checkpoint=None, progress=False, seed=0, callbacks=[progress]
    )
    run_record = trainer.fit(task, treadle.Loader(data, batch_size=5), data)
    text = without_escapes(stream.getvalue())
    assert text.splitlines()[-1] == "Stopped after 2 epochs, 8 steps: max_epochs=2 reached"
    assert number_text(run_record.history["val/loss"][-1]) in text


def test_rich_is_imported_only_when_something_is_shown() -> None:
    program = "import sys, treadle.callbacks; print('rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
