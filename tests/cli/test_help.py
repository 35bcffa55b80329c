from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from treadle.cli.main import main

COMMANDS = ("fit", "resume", "evaluate", "predict", "runs")
HEAVY = ("torch", "numpy", "yaml", "rich", "jsonargparse", "safetensors", "treadle.trainer")
PROBE = """
import sys
from treadle.cli.main import main
code = main(sys.argv[1:])
print("heavy:", *[name for name in {heavy!r} if name in sys.modules])
sys.exit(code)
"""


@pytest.mark.parametrize("words", [("--help",), ("fit", "--help"), ("predict", "--help"), ("--version",)])
def test_help_imports_nothing_heavy_and_is_quick(words: tuple[str, ...]) -> None:
    took = []
    for _ in range(3):  # the machine may be busy; the best of three is what the code costs
        began = time.monotonic()
        probe = [sys.executable, "-c", PROBE.format(heavy=HEAVY), *words]
        done = subprocess.run(probe, capture_output=True, text=True, timeout=60)
        took.append(time.monotonic() - began)
        assert done.returncode == 0, done.stderr
        assert done.stdout.rstrip().endswith("heavy:")
    assert min(took) < 0.3


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys) -> None:
    assert main([command, "--help"]) == 0
    assert f"usage: treadle {command}" in capsys.readouterr().out


def test_the_help_has_the_exit_codes(capsys) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for code in ("0 ", "1 ", "2 ", "75 "):
        assert f"\n  {code}" in shown
    for command in COMMANDS:
        assert f"\n    {command} " in shown
    assert main([]) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fitt"], "invalid choice: 'fitt'"),
        (["fit"], "the following arguments are required: CONFIG"),
        (["fit", "x.yaml", "--se", "a=1"], "unrecognized arguments: --se a=1. Did you mean --set?"),
        (["fit", "x.yaml", "--runs-dir=a"], "Did you mean --run-dir?"),
        (["predict", "run", "x.npy"], "the following arguments are required: -o/--output"),
        (["evaluate", "run", "--data", "tset"], "invalid choice: 'tset'"),
    ],
)
def test_wrong_usage_says_what_is_meant(words: list[str], said: str, capsys) -> None:
    assert main(words) == 2
    assert said in capsys.readouterr().err


def test_listing_runs_needs_no_torch(tmp_path: Path) -> None:
    probe = [sys.executable, "-c", PROBE.format(heavy=("torch",)), "runs", str(tmp_path)]
    done = subprocess.run(probe, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("heavy:")
