"""Pictures, histograms and texts on the page."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import torch
from tests.report.samples import HOSTILE, usual

from treadle.media import png_of
from treadle.report import render
from treadle.report.media import ROOM
from treadle.runs import Run
from treadle.runs.media import of_histogram, of_picture, of_text


def test_the_newest_of_each_name_is_shown(tmp_path: Path) -> None:
    old, new = png_of(torch.zeros(2, 2)), png_of(torch.ones(2, 2))
    with Run.create(tmp_path / "run") as run:
        run.add_media([of_picture("val/results", 1, old), of_picture("val/results", 2, new)])
        run.add_media(
            [of_histogram("train/weights", 2, [-1, 0, 1], [3, 1]), of_text("remark", 2, "one & two")]
        )
        text = render(run)
    assert re.findall(r'src="data:image/png;base64,([^"]*)"', text) == [base64.b64encode(new).decode()]
    assert '<pre tabindex="0">one &amp; two</pre>' in text
    assert 'aria-label="4 values from -1 to 1"' in text
    assert text.count("step 2</span>") == 3
    assert '<a href="#pictures">Pictures</a>' in text


def test_a_run_without_any_has_no_such_section(tmp_path: Path) -> None:
    assert "Pictures and texts" not in render(usual(tmp_path / "run"))


def test_hostile_names_and_texts_stay_text_and_pages_stay_small(tmp_path: Path) -> None:
    large = png_of(torch.rand(700, 700, generator=torch.Generator().manual_seed(0)))
    assert len(large) > ROOM
    with Run.create(tmp_path / "run") as run:
        run.add_media([of_text(HOSTILE, 1, HOSTILE * 10_000), of_picture(HOSTILE, 1, large)])
        run.add_media([of_histogram(HOSTILE, 1, [0, 1], [0])])
        run.add_media([of_text(f"text {number}", 1, "x") for number in range(100)])
        text = render(run)
    assert text.count("<script") == 3
    assert "<img" not in text
    assert "would grow too large" in text
    assert "63 more are not shown." in text
    assert "There is nothing finite in it." in text
    assert len(text) < 500_000
