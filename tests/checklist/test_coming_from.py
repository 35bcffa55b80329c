"""Every right-hand side of the tables stands in code that is run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "coming-from.md"
SECTIONS = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]
NAMES = (
    "tinybig",
    "PytorchTask",
    "aitoolbox",
    "nntrain",
    "Lightning",
    "fastai",
    "Hugging Face Trainer",
    "Keras",
)


def without_spaces(text: str) -> str:
    return re.sub(r"\s+", "", text)


def test_all_are_there() -> None:
    assert tuple(section.splitlines()[0] for section in SECTIONS) == NAMES


@pytest.mark.parametrize("section", SECTIONS, ids=NAMES)
def test_every_right_hand_side_is_run(section: str) -> None:
    blocks = re.findall(r"^```(?:python|bash)\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    code = without_spaces("".join(blocks))
    rows = [line.split(" | ") for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 10
    for row in rows:
        assert len(row) == 2, row
        for piece in re.findall(r"`([^`]+)`", row[1]):
            assert without_spaces(piece) in code, piece
