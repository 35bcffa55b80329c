"""How a run shows itself."""

from __future__ import annotations

import math
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.report.samples import HOSTILE, empty, hostile, usual

from treadle.runs import Run


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)


def test_a_notebook_shows_the_curves_and_the_last_rows(tmp_path: Path) -> None:
    text = usual(tmp_path / "run")._repr_html_()
    assert "<b>usual</b>" in text
    assert re.search(r'aria-label="loss">.*train/loss 0\.\d+.*val/loss 0\.\d+', text)
    assert text.count("<tr>") == 7
    assert "script" not in text
    assert len(text) < 30_000


def test_names_stay_text(tmp_path: Path) -> None:
    text = hostile(tmp_path / "run")._repr_html_()
    assert Tags(text).found <= {
        *("div", "p", "b", "svg", "text", "tspan", "polyline"),
        *("table", "thead", "tbody", "tr", "th", "td"),
    }
    assert HOSTILE not in text


def test_an_empty_run_is_shown_too(tmp_path: Path) -> None:
    with empty(tmp_path / "run") as run:
        assert "running" in run._repr_html_()
    memory = Run.create(None)
    memory.append_epoch(1, 1, {"val/loss": math.nan})
    assert "in memory" in memory._repr_html_()


def test_the_history_is_taken_by_pandas_and_polars(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    polars = pytest.importorskip("polars")
    history = usual(tmp_path / "run").history
    for frame in (pandas.DataFrame(history), polars.DataFrame(history)):
        assert frame.shape == (6, len(history))
        assert list(frame["epoch"]) == [1, 2, 3, 4, 5, 6]
        assert list(frame["val/loss"]) == history["val/loss"]


def test_a_plot_is_a_figure(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    before = set(sys.modules)
    run = usual(tmp_path / "run")
    figure = run.plot()
    assert [axes.get_title() for axes in figure.axes] == ["loss", "norm", "accuracy", "learning_rate"]
    labels = [line.get_label() for line in figure.axes[0].lines]
    assert labels == ["train/loss", "val/loss"]
    figure.savefig(tmp_path / "run.png")
    assert len(run.plot(["val/loss"], logarithmic=True).axes) == 1
    assert "matplotlib.pyplot" not in set(sys.modules) - before
    with pytest.raises(KeyError, match="there is no curve 'none'"):
        run.plot(["none"])


def test_without_matplotlib_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'treadle\[plots\]'"):
        Run.create(None).plot()
