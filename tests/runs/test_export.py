"""Metrics as CSV."""

from __future__ import annotations

import csv
import math
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from treadle.runs import Run, RunError, export_csv, read_csv


def filled(path):
    run = Run.create(path, name="a/b")
    run.append_steps([("lr", 1, 0.1), ("lr", 3, math.nan), ("loss", 3, math.inf), ("loss", 12, -math.inf)])
    run.append_epoch(1, 10, {"loss": 2.0, "val/loss": 1 / 3})
    run.append_epoch(2, 12, {"loss": 1e-300})
    return run


def test_rows_by_step_columns_by_name_empty_where_there_is_nothing(tmp_path):
    path = export_csv(filled(None), tmp_path, "curve")
    assert path == tmp_path / "curve" / "version_0" / "metrics.csv"
    assert path.read_text().splitlines() == [
        "epoch,step,loss_epoch,loss_step,lr,val/loss",
        "1,1,,,0.1,",
        "1,3,,inf,nan,",
        "1,10,2.0,,,0.3333333333333333",
        "2,12,1e-300,-inf,,",
    ]
    columns = read_csv(path.parent)
    assert (columns["epoch"], columns["step"]) == ([1, 1, 1, 2], [1, 3, 10, 12])
    assert columns["loss_step"][1] == math.inf
    assert columns["val/loss"][2] == 1 / 3
    assert math.isnan(columns["lr"][3])


def test_an_epoch_that_is_not_finished_has_the_next_number(tmp_path):
    run = filled(None)
    run.append_steps([("lr", 13, 0.0)])
    assert read_csv(export_csv(run, tmp_path))["epoch"] == [1, 1, 1, 2, 3]


def test_an_empty_run(tmp_path):
    path = export_csv(Run.create(None), tmp_path)
    assert path.read_text() == "epoch,step\n"
    assert read_csv(path) == {"epoch": [], "step": []}


def test_versions_count_up_and_the_name_stays_inside(tmp_path):
    with filled(tmp_path / "run") as run:
        paths = [export_csv(run) for _ in range(2)]
        assert paths == [run.path / "csv" / "a_b" / f"version_{n}" / "metrics.csv" for n in range(2)]
        (run.path / "csv" / "a_b" / "version_7").mkdir()
        assert export_csv(run).parent.name == "version_8"
        with pytest.raises(RunError, match="is not a plain name"):
            export_csv(run, tmp_path, "../x")
    with pytest.raises(RunError, match="in memory: give a folder"):
        export_csv(Run.create(None))


def test_exports_at_once_get_a_version_each(tmp_path):
    with filled(tmp_path / "run") as run, ThreadPoolExecutor(6) as pool:
        paths = list(pool.map(lambda _: export_csv(run, tmp_path / "out", "x"), range(12)))
    assert len(set(paths)) == 12
    assert set(os.listdir(tmp_path / "out" / "x")) == {f"version_{number}" for number in range(12)}


def test_a_failed_export_leaves_nothing(tmp_path, monkeypatch):
    run = filled(None)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        export_csv(run, tmp_path, "x")
    assert os.listdir(tmp_path / "x") == []


def test_what_is_no_table_is_a_clear_error(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,step\n1,two\n")
    with pytest.raises(RunError, match="is no table of metrics"):
        read_csv(tmp_path)
    with pytest.raises(RunError, match="cannot be read"):
        read_csv(tmp_path / "none.csv")


def test_many_rows_are_all_there(tmp_path):
    run = Run.create(None)
    run.append_steps([("x", step, step / 3) for step in range(25_001)])
    with open(export_csv(run, tmp_path), newline="") as file:
        rows = list(csv.reader(file))[1:]
    assert rows == [["1", str(step), repr(step / 3)] for step in range(25_001)]
