"""The curve: its two datasets, its model, its program."""

# ruff: noqa: N802 - the capital letter is the row of the list of results that the test shows

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from benchmarks import reproduce

import treadle
from examples import curve
from treadle.runs import read_csv


def test_E1_the_map_dataset() -> None:
    points = curve.MyCurve(100)
    assert len(points) == 100
    x, y = points[42]
    assert (round(x.item(), 4), round(y.item(), 4)) == (0.4242, 2.8342)


def test_E1_the_stream() -> None:
    first = list(curve.StreamedCurve(0, 2, 0.1))[:3]
    assert [(round(x.item(), 4), round(y.item(), 4)) for x, y in first] == [
        (0.0, 1.0),
        (0.1, 1.8646),
        (0.2, 2.5320),
    ]


@pytest.mark.parametrize(
    ("end", "delta", "points"), [(2, 0.01, 200), (0.9, 0.03, 30), (1, 0.1, 10), (1, 0.3, 4), (1, 1 / 3, 3)]
)
def test_E_the_stream_does_not_drift(end: float, delta: float, points: int) -> None:
    stream = curve.StreamedCurve(0, end, delta)
    xs = [x.item() for x, _ in stream]
    assert len(xs) == len(stream) == points
    assert xs[-1] < end
    assert xs[-1] == pytest.approx((points - 1) * delta, abs=1e-7)


def test_E_two_workers_do_not_double_the_stream() -> None:
    stream = curve.StreamedCurve(0, 2, 0.1)
    seen = {}
    for workers in (0, 2):
        batches = list(treadle.Loader(stream, batch_size=8, workers=workers))
        seen[workers] = torch.cat([x for x, _ in batches]).flatten().tolist()
        assert [len(x) for x, _ in batches] == [8, 8, 4]  # the last may be short
    assert len(seen[0]) == 20
    assert seen[2] == seen[0]


def test_E2_forty_nine_parameters() -> None:
    assert sum(parameter.numel() for parameter in curve.CurveTask().parameters()) == 49


@pytest.mark.parametrize("stream", [False, True])
def test_E4_the_program_exports_a_table_and_reads_it_back(tmp_path: Path, stream: bool) -> None:
    options = [f"--run-dir={tmp_path}/run", f"--csv={tmp_path}/csv", "--epochs=2"]
    for version in range(2):
        run = curve.main([*options, *(["--stream"] if stream else [])])
        table = read_csv(tmp_path / "csv" / "curve" / f"version_{version}")
        assert {"epoch", "step", "train/loss_step", "train/loss_epoch", "val/loss"} <= set(table)
        assert table["step"] == list(range(1, 65))
        losses = [value for value in table["train/loss_epoch"] if value == value]
        assert losses == run.history["train/loss"]
    assert losses[1] < losses[0]


def test_E_one_seed_is_within_the_spread() -> None:
    found = reproduce.curve_losses([0])
    for epochs, (low, _, high) in reproduce.CURVE.items():
        assert low <= found[str(epochs)][0] <= high
