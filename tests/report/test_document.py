"""What is in the page, as far as it can be seen without a browser; the rest is in tests/browser."""

from __future__ import annotations

import json
import math
import re
import resource
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.report.samples import HOSTILE, empty, hostile, usual

from treadle.report import render, write_report
from treadle.report.document import data_of
from treadle.runs import Run, RunError


class Elements(HTMLParser):
    """The elements of a page and what they refer to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_stands_alone(tmp_path: Path) -> None:
    text = render([usual(tmp_path / "one"), usual(tmp_path / "two", lr=0.2)])
    for tag, attributes in Elements(text).found:
        assert tag not in ("link", "iframe", "object", "embed", "img", "base", "form")
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")
        assert not any(name.startswith("on") or name == "style" for name in attributes)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert policy[1].startswith("default-src 'none';")
    assert "unsafe" not in policy[1]


def test_a_usual_page_is_small(tmp_path: Path) -> None:
    assert len(render(usual(tmp_path / "one")).encode()) < 150_000
    long = usual(tmp_path / "long", epochs=100, steps=200)
    assert len(render(long).encode()) < 500_000
    assert len(render([long, *(usual(tmp_path / f"{n}", epochs=50) for n in range(5))]).encode()) < 500_000


def test_hostile_names_are_text_everywhere(tmp_path: Path) -> None:
    text = render([hostile(tmp_path / f"{number}") for number in range(3)])
    plain = render([usual(tmp_path / f"usual-{number}", lr=0.1 + number) for number in range(3)])
    tags = {tag for tag, _ in Elements(text).found}
    assert tags <= {tag for tag, _ in Elements(plain).found} | {"p", "li"}
    assert sum(tag == "script" for tag, _ in Elements(text).found) == 3
    data = text[text.index('id="data">') + len('id="data">') :]
    drawn = json.loads(data[: data.index("</script>")])
    assert any(curve["name"] == f"train/{HOSTILE}" for curve in drawn["runs"][0]["curves"])
    json.dumps(drawn, allow_nan=False)


def test_curves_keep_their_extremes_and_say_what_is_not_finite(tmp_path: Path) -> None:
    values = np.sin(np.arange(20_000) / 500)
    values[12_345] = 9.0
    with Run.create(tmp_path / "run") as run:
        run.append_steps([("loss", step, float(value)) for step, value in enumerate(values)])
        run.append_steps([("nan", step, math.nan if step == 3 else 1.0) for step in range(5)])
    loss, nan = data_of([run])["runs"][0]["curves"]
    assert loss["points"] == 20_000
    assert len(loss["mean"]) <= 500
    assert max(loss["maximum"]) == 9.0
    assert (nan["gaps"], nan["gap"]) == (1, 3)
    assert nan["mean"] == [1, 1, 1, None, 1]


def test_runs_side_by_side_show_what_differs(tmp_path: Path) -> None:
    runs = [usual(tmp_path / f"{lr}", lr=lr) for lr in (0.1, 0.2, 0.3)]
    text = render(runs)
    assert re.findall(r'<th scope="row"><bdi>(task\.\w+)', text) == ["task.lr"]
    axes = data_of(runs)["axes"]
    assert axes[0]["name"] == "task.lr"
    assert axes[0]["values"] == [0.1, 0.2, 0.3]
    assert data_of(runs[:2])["axes"] == []


def test_a_run_that_has_just_begun_is_reported(tmp_path: Path) -> None:
    with empty(tmp_path / "run") as run:
        text = render(run)
    assert "running" in text
    assert "Nothing is recorded yet." in text


def test_the_file_is_replaced_at_once_and_errors_name_it(tmp_path: Path) -> None:
    run = usual(tmp_path / "run")
    path = write_report(run, tmp_path / "out.html")
    assert [entry.name for entry in tmp_path.iterdir() if entry.name != "run"] == ["out.html"]
    assert path.read_text().startswith("<!DOCTYPE html>")
    with pytest.raises(RunError, match=r"missing/out.html: the report cannot be written: No such file"):
        write_report(run, tmp_path / "missing" / "out.html")
    with pytest.raises(ValueError, match="runs is empty"):
        render([])


def test_reporting_needs_no_torch(tmp_path: Path) -> None:
    usual(tmp_path / "run")
    program = (
        "import sys; from treadle.report import write_report; from treadle.runs import Run\n"
        "write_report(Run.open(sys.argv[1]), sys.argv[2]); assert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "run"), str(tmp_path / "out.html")]
    subprocess.run(command, check=True, timeout=60)


def test_half_a_million_points_take_little_time_and_memory(tmp_path: Path) -> None:
    """A small one of `benchmarks/report.py`, which does ten million."""
    steps = range(1, 100_001)
    with Run.create(tmp_path / "run") as run:
        for name in "abcde":
            run.append_steps([(f"train/{name}", step, math.sin(step)) for step in steps])
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    size = len(render(Run.open(tmp_path / "run")))
    seconds = time.perf_counter() - began
    grown: Any = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert seconds < 2  # it takes about a tenth of a second
    assert grown < 100_000  # KiB
    assert size < 500_000
