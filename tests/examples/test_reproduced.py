"""The page of reproduced numbers says what was measured."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import reproduce

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_written_from_the_measurements() -> None:
    found = json.loads((DOCS / "reproduced.json").read_text())
    assert (DOCS / "reproduced.md").read_text() == reproduce.page(found)
    assert len(found["fashion"]["SGD"]) == len(found["fashion"]["momentum"]) == 10
    assert len(found["curve"]["10"]) == len(found["curve"]["30"]) == 30


def test_a_number_outside_the_spread_is_marked() -> None:
    assert reproduce.spread([3.0, 1.0, 2.0]) == "1.000 / 2.000 / 3.000"
    assert reproduce.mark("1.000 / 2.000 / 3.000", 2.5) == ""
    assert reproduce.mark("1.000 / 2.000 / 3.000", 3.5) == " \\*"
