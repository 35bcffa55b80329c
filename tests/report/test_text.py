"""Curves as text."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from tests.report.samples import HOSTILE, empty, hostile, usual

from treadle.report import draw
from treadle.runs import Run


def test_a_chart_has_its_scale_and_its_last_value(tmp_path: Path) -> None:
    with Run.create(tmp_path / "run", name="line") as run:
        run.append_steps([("loss", step, float(step)) for step in range(101)])
    text = draw(run, width=60, height=5, names=["loss"])
    lines = text.splitlines()
    assert lines[0].startswith("line ")
    assert lines[2] == "* loss 100"
    chart = lines[3:8]
    assert [line[:12] for line in chart] == [
        "       100 |",
        "           |",
        "        50 |",
        "           |",
        "         0 |",
    ]
    # A rising line: every row has its stars to the left of the row above.
    firsts = [line.index("*", 11) for line in chart]
    assert firsts == sorted(firsts, reverse=True)
    assert lines[8].split() == ["0", "step", "100"]
    assert len(lines[8]) == 60


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_is_wider_than_asked(tmp_path: Path, width: int) -> None:
    for run in (usual(tmp_path / "usual"), hostile(tmp_path / "hostile")):
        for line in draw(run, width).splitlines():
            assert len(line) <= width
            assert line.isprintable()


def test_train_and_validation_share_a_chart_and_gradients_are_left_out(tmp_path: Path) -> None:
    text = draw(usual(tmp_path / "run"))
    assert "* train/loss" in text
    assert "o val/loss" in text
    assert "learning_rate" in text
    assert "gradient" not in text
    assert "gradient" in draw(usual(tmp_path / "other"), names=["gradient/norm"])


def test_hostile_names_cannot_steer_the_terminal(tmp_path: Path) -> None:
    with Run.create(tmp_path / "run", name="\x1b[2Jgone\r\n") as run:
        run.append_steps([(f"\x1b]0;{HOSTILE}\x07", 1, 1.0), ("nan", 1, math.nan)])
    text = draw(run)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "(no finite values)" in text


def test_what_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    with empty(tmp_path / "run") as run:
        assert "nothing is recorded yet" in draw(run)
        with pytest.raises(KeyError, match="there is no curve 'loss'"):
            draw(run, names=["loss"])
        with pytest.raises(ValueError, match="39 columns and 10 lines are too few"):
            draw(run, width=39)
