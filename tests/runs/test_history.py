"""The table of epochs."""

from __future__ import annotations

import math

import pytest

from treadle.runs import Run, RunError


@pytest.fixture
def run():
    run = Run.create(None)
    run.append_epoch(1, 10, {"train/loss": 2.0, "time/start": 5.0, "time/end": 8.0, "time/epoch": 2.5})
    run.append_epoch(2, 20, {"train/loss": 1.0, "val/accuracy": 0.5})
    return run


def test_one_column_a_metric_one_row_an_epoch(run):
    history = run.history
    assert list(history)[:2] == ["epoch", "step"]
    assert (history["epoch"], history["step"], history["train/loss"]) == ([1, 2], [10, 20], [2.0, 1.0])
    assert math.isnan(history["val/accuracy"][0])
    assert len(history.rows()) == 2
    assert history.last()["val/accuracy"] == 0.5
    assert {len(column) for column in history.values()} == {2}
    with pytest.raises(KeyError, match=r"no column 'loss'; there are epoch, step, train/loss"):
        history["loss"]


def test_the_names_of_its_own_columns_are_taken(run):
    for name in ("epoch", "step"):
        with pytest.raises(RunError, match=f"{name!r} is a column of the history itself"):
            run.append_epoch(3, 30, {name: 1.0})
    assert run.history["epoch"] == [1, 2]


def test_an_empty_one():
    history = Run.create(None).history
    assert dict(history) == {"epoch": [], "step": []}
    assert (history.rows(), history.last(), repr(history)) == ([], {}, "epoch  step")


def test_it_prints_as_a_table(run):
    assert repr(run.history).splitlines() == [
        "epoch  step  train/loss  time/epoch  val/accuracy",
        "    1    10           2         2.5           nan",
        "    2    20           1         nan           0.5",
    ]


def test_a_long_one_prints_its_end():
    run = Run.create(None)
    for epoch in range(1, 101):
        run.append_epoch(epoch, epoch, {})
    lines = repr(run.history).splitlines()
    assert lines[1] == "... 80 earlier epochs"
    assert (len(lines), lines[-1].split()) == (22, ["100", "100"])


def test_durations_come_from_the_times_that_were_recorded(run):
    first, second = run.durations
    assert first == (1, 5.0, 8.0, 2.5)
    assert second.epoch == 2
    assert all(math.isnan(value) for value in second[1:])


def test_pandas_takes_it(run):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(run.history)
    assert frame["epoch"].tolist() == [1, 2]
    assert frame.shape == (2, 7)


def test_polars_takes_it(run):
    polars = pytest.importorskip("polars")
    assert polars.DataFrame(run.history).shape == (2, 7)
