"""The page of the checklist says what is tested."""

from __future__ import annotations

import pytest

from docs import checklist


def test_the_page_is_written_from_the_tests() -> None:
    written = checklist.page(checklist.collected())
    assert checklist.PAGE.read_text() == written, "run: python docs/checklist.py"


def test_a_row_without_a_test_and_a_test_without_a_row_are_errors() -> None:
    tests = [
        f"tests/checklist/test_{row[0].lower()}.py::test_{row}_x"
        for section in checklist.SECTIONS.values()
        for row in section.rows
    ]
    tests += [
        f"tests/checklist/test_x.py::test_{letter}_beat_{words}"
        for letter, section in checklist.SECTIONS.items()
        for words in section.beats.values()
    ]
    assert checklist.page(tests).count("\n| ") > len(tests)
    with pytest.raises(ValueError, match="no test shows row A1"):
        checklist.page(tests[1:])
    with pytest.raises(ValueError, match="no test shows: two workers"):
        checklist.page([test for test in tests if "two_workers" not in test])
    with pytest.raises(ValueError, match="tests of no row"):
        checklist.page([*tests, "tests/checklist/test_a.py::test_A9_x"])
