"""The numbers that five other trainers agree on."""

# ruff: noqa: N802 - the capital letter is the row of the list of results that the test shows

from __future__ import annotations

from pathlib import Path

from benchmarks import reproduce

import treadle


def test_F_same_digits_as_a_hand_written_loop(tmp_path: Path) -> None:
    loss, accuracy = reproduce.digits_result(treadle.SupervisedTask, tmp_path)
    assert (f"{loss:.6f}", f"{accuracy:.4f}") == ("0.423861", "0.9278")


def test_F_same_digits_with_momentum_by_overriding_zero_grad(tmp_path: Path) -> None:
    loss, accuracy = reproduce.digits_result(reproduce.FadingTask, tmp_path)
    assert (f"{loss:.6f}", f"{accuracy:.4f}") == ("0.137268", "0.9583")


def test_F_everything_was_on(tmp_path: Path) -> None:
    reproduce.digits_result(treadle.SupervisedTask, tmp_path)
    run = treadle.Run.open(tmp_path / "run")
    assert run.status == "finished"
    assert len(run.history["val/accuracy"]) == 5
    assert len(run.series("train/loss").steps) == run.step == 5 * 45
    assert run.checkpoints
