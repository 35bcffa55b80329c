"""The text classifier: its texts, and what it learns of them."""

# ruff: noqa: N802 - the capital letter is the row of the list of results that the test shows

from __future__ import annotations

from pathlib import Path

import pytest

import treadle
from examples import text_classification


def test_the_texts_are_balanced_and_all_different() -> None:
    texts = text_classification.reviews()
    assert len({text for text, _ in texts}) == len(texts) == 6912
    assert sum(label for _, label in texts) == 6912 // 2
    said = dict(texts)
    assert said["the film was very good"] == said["we all thought the film not boring"] == 1
    assert said["the film was dull"] == said["i found the song not very great"] == 0


def test_the_tokenizer_knows_what_it_has_seen() -> None:
    tokenizer = text_classification.Tokenizer([("a good film", 1)])
    assert len(tokenizer) == 7
    assert tokenizer("a bad film") == [2, 4, 1, 5, 3]


def test_D5_the_program_learns_negation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers", reason="Hugging Face transformers is not installed")
    pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
    scores = text_classification.main([f"--run-dir={tmp_path}/run"])
    assert scores.values["accuracy"] > 0.95
    assert scores.samples == 1000
    shown = capsys.readouterr().out
    assert "the film was not dull: good" in shown
    assert "the meal is rather awful: bad" in shown
    assert treadle.Run.open(tmp_path / "run").status == "finished"
