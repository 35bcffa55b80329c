"""A fit in a real notebook: a kernel of its own, to which cells are sent, and what they show."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

FIT = """
import torch
import treadle

torch.set_num_threads(1)
inputs, targets = torch.randn(40, 4), torch.arange(40) % 3
run = treadle.fit(
    torch.nn.Linear(4, 3), (inputs, targets), (inputs, targets), epochs=4,
    loss=torch.nn.functional.cross_entropy, metrics={"accuracy": treadle.metrics.Accuracy()},
)
"""
SHOW = "run"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[list[Any]], Path]:
    """What the cells put out."""
    folder: Path = tmp_path_factory.mktemp("notebook")
    cells = [nbformat.v4.new_code_cell(source) for source in (FIT, SHOW, "run.history['val/loss'][-1]")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    client = nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}})
    client.execute()
    return [cell.outputs for cell in notebook.cells], folder


def html_of(output: Any) -> str:
    return str(output["data"]["text/html"])


def test_the_live_table_and_curves_are_outputs_that_are_replaced(outputs: Any) -> None:
    (shown, *_), _ = outputs
    assert [output["output_type"] for output in shown] == ["display_data"] * 4, shown
    ahead, layers, live, curves = (html_of(output) for output in shown)
    assert "Training: 4 epochs" in ahead
    assert "15 parameters" in layers
    assert "Linear" in layers
    # As it was at the end: one heading, every epoch once, no bars.
    assert live.count("accuracy") == 1
    assert len(re.findall(r"\btrain\b", live)) == len(re.findall(r"\bval\b", live)) == 4
    assert "max_epochs=4 reached" in live
    assert "━" not in live
    assert curves.count("<svg") == 3  # loss, accuracy and learning rate
    assert curves.count("<polyline") == 5  # the first two of training and of validation


def test_a_run_shows_itself(outputs: Any) -> None:
    (_, (shown,), _), folder = outputs
    assert shown["output_type"] == "execute_result"
    html = html_of(shown)
    assert "<svg" in html
    assert "finished" in html
    assert "<script" not in html
    assert (folder / "runs" / "run" / "report.html").is_file()


def test_the_history_is_there_for_the_next_cell(outputs: Any) -> None:
    (*_, (shown,)), _ = outputs
    assert float(shown["data"]["text/plain"].removeprefix("np.float64(").rstrip(")")) > 0
