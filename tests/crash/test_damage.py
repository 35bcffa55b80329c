"""Damaged files are refused by name: a short run of `tests.crash.damage`."""

from __future__ import annotations

import subprocess
import sys

from tests.crash.client import ROOT


def test_damaged_inputs_are_never_loaded_wrongly() -> None:
    """In a process of its own, whose memory is looked at."""
    command = [sys.executable, "-m", "tests.crash.damage", "--inputs", "500"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "500 damaged inputs, 0 wrong" in done.stdout
