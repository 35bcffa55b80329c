"""A run that is killed again and again ends bit for bit like one that never was."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.crash.chain import chain
from tests.crash.client import Server
from tests.crash.program import SETTINGS

KILLS = 5
"""In each setting: 65 in all. `python -m tests.crash.long` does any number."""


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_killed_again_and_again_it_ends_the_same(server: Server, tmp_path: Path, name: str) -> None:
    totals = chain(server, SETTINGS[name], KILLS, tmp_path / "chain", random.Random(name))
    assert totals.wrong == []
    assert totals.kills == KILLS


def test_the_settings_cover_the_matrix() -> None:
    """Every feature is on in one setting and off in another, and all of it together in one."""
    for name in ("shuffle", "workers", "dropout", "augment", "scheduler", "averaging", "stopping", "stream"):
        assert len({bool(getattr(setting, name)) for setting in SETTINGS.values()}) == 2, name
    for name in ("background", "accumulate", "precision", "every_steps", "keep_last", "eval_steps"):
        assert len({getattr(setting, name) for setting in SETTINGS.values()}) >= 2, name
    assert len(SETTINGS) * KILLS >= 40
