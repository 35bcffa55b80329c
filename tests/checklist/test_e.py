"""Rows E: a curve as a data set and as a stream, a module with its step, a log as CSV."""

# ruff: noqa: N802 - the capital letter and number are the row that the test shows

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import treadle
from examples import curve
from treadle.callbacks import Progress, Summary
from treadle.runs import export_csv, read_csv

ROOT = Path(__file__).parents[2]


def trainer(**options: Any) -> treadle.Trainer:
    settings = {"max_epochs": 2, "seed": 0, "run_dir": None, "progress": False, "device": "cpu"} | options
    return treadle.Trainer(**settings)


def rounded(points: Any) -> list[tuple[float, float]]:
    return [(round(x.item(), 4), round(y.item(), 4)) for x, y in points]


def test_E1_the_map_dataset() -> None:
    points = curve.MyCurve(100)
    assert len(points) == 100
    assert rounded([points[42]]) == [(0.4242, 2.8342)]


def test_E1_the_stream() -> None:
    first = [point for point, _ in zip(curve.StreamedCurve(0, 2, 0.1), range(3), strict=False)]
    assert rounded(first) == [(0.0, 1.0), (0.1, 1.8646), (0.2, 2.532)]


def test_E2_batches_of_thirty_two_shuffled_with_a_short_last_one() -> None:
    loader = treadle.Loader(curve.MyCurve(100), 32, shuffle=True)
    batches = list(loader)
    assert [len(x) for x, _ in batches] == [32, 32, 32, 4]
    xs = torch.cat([x for x, _ in batches]).flatten()
    assert not torch.equal(xs, xs.sort().values)
    assert torch.equal(xs.sort().values, torch.linspace(0, 1, 100))


def test_E2_the_model_has_forty_nine_parameters() -> None:
    assert sum(parameter.numel() for parameter in curve.CurveTask().parameters()) == 49


def test_E3_module_step_trainer_table_and_why_it_stopped() -> None:
    class Lecture(curve.CurveTask):
        """Model, loss and optimizer; what the step returns is logged, and more where it says so."""

        def compute_loss(self, batch: Any, state: treadle.State) -> Any:
            loss = super().compute_loss(batch, state)
            state.log("root", loss.sqrt())
            return loss

    console = Console(file=io.StringIO(), width=140)
    shown = [Summary(console=console), Progress(console)]
    run = trainer(callbacks=shown).fit(Lecture(), treadle.Loader(curve.MyCurve(64), 32), curve.MyCurve(10))
    output = console.file.getvalue()
    assert "49 parameters" in output
    assert output.index("49 parameters") < output.index("epoch 1/2")
    for name in ("train/loss", "train/root", "val/loss"):
        assert name in output
    assert output.rstrip().endswith("Stopped after 2 epochs, 4 steps: max_epochs=2 reached")
    assert run.reason == "max_epochs=2 reached"


def test_E4_a_csv_log_with_a_version_counted_up(tmp_path: Path) -> None:
    for version in range(3):
        run = trainer(log_every=1).fit(curve.CurveTask(), treadle.Loader(curve.MyCurve(64), 32))
        path = export_csv(run, tmp_path, "curve")
        assert path == tmp_path / "curve" / f"version_{version}" / "metrics.csv"
    table = read_csv(path)
    assert {"epoch", "step"} <= set(table)
    assert table["step"] == [1, 2, 3, 4]
    assert table["train/loss_step"] == pytest.approx(run.series("train/loss").values.tolist())
    assert [v for v in table["train/loss_epoch"] if v == v] == run.history["train/loss"]


def test_E4_the_log_is_plotted(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run = trainer().fit(curve.CurveTask(), treadle.Loader(curve.MyCurve(64), 32), curve.MyCurve(10))
    path = export_csv(run, tmp_path, "curve")
    curve.plot(read_csv(path), tmp_path / "loss.png")
    assert (tmp_path / "loss.png").stat().st_size > 1000


def test_E_beat_the_stream_does_not_drift() -> None:
    for end, delta, points in ((2, 0.01, 200), (1, 0.1, 10), (1, 0.3, 4)):
        xs = [x.item() for x, _ in curve.StreamedCurve(0, end, delta)]
        assert len(xs) == points
        assert xs == pytest.approx([i * delta for i in range(points)], abs=1e-6)


def test_E_beat_two_workers_give_the_stream_once() -> None:
    def seen(workers: int) -> list[float]:
        loader = treadle.Loader(curve.StreamedCurve(0, 2, 0.1), batch_size=8, workers=workers)
        return torch.cat([x for x, _ in loader]).flatten().tolist()

    assert seen(2) == seen(0)
    assert len(seen(0)) == 20


def test_E3_the_loss_after_ten_epochs() -> None:
    """One seed does again what is recorded of it, and lies in the spread of the originals' thirty."""
    loss = curve.train(10, seed=1, run_dir=None, progress=False, device="cpu").history["val/loss"][-1]
    recorded = json.loads((ROOT / "docs/reproduced.json").read_text())["curve"]
    assert loss == pytest.approx(recorded["10"][1], rel=0.02)
    assert 0.218 * 0.98 <= loss <= 1.214 * 1.02
    assert 0.195 * 0.98 <= recorded["30"][1] <= 0.238 * 1.02
