"""Break Treadle in every listed way, on a copy, and see that the tests notice each.

    python -m tests.mutants [--only WORD] [--jobs 2]

Leaves with 1 where a mutant survives, where a mutation no longer applies, or where the tests fail unbroken.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.mutations import MUTATIONS, Mutation

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 600.0


@dataclass(frozen=True)
class Outcome:
    """What the tests said of a mutant."""

    mutation: Mutation
    verdict: str  # "caught", "SURVIVED", "does not apply", "no tests", "caught: hangs"
    by: str
    seconds: float


def copied(folder: Path) -> Path:
    """The code and its tests, by themselves."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("src", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def run_tests(folder: Path, tests: tuple[str, ...]) -> tuple[int, str]:
    """Pytest's exit code on the copy, and the first test that failed."""
    environment = {**os.environ, "PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1"}
    options = ("-x", "-q", "-p", "no:cacheprovider", "--tb=no", "-rfE", f"--basetemp={folder / 'scratch'}")
    command = [sys.executable, "-m", "pytest", *options, *tests]
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        return -1, "the time limit"
    failed = [line for line in done.stdout.split("\n") if line.startswith(("FAILED", "ERROR"))]
    return done.returncode, failed[0].split(" ")[1].split("/")[-1] if failed else done.stdout[-300:]


def judge(mutation: Mutation) -> Outcome:
    """Break a copy and let the tests look at it."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as scratch:
        folder = copied(Path(scratch))
        path = folder / "src" / "treadle" / mutation.file
        text = path.read_text()
        if text.count(mutation.old) != 1:
            return Outcome(
                mutation, "does not apply", f"{text.count(mutation.old)} places in {mutation.file}", 0.0
            )
        path.write_text(text.replace(mutation.old, mutation.new))
        code, by = run_tests(folder, mutation.tests)
        if code == 0:  # what only shows when processes meet in time may be missed once on a busy machine
            code, by = run_tests(folder, mutation.tests)
    verdict = {0: "SURVIVED", 1: "caught", -1: "caught"}.get(code, "no tests")
    return Outcome(
        mutation, verdict, by if verdict != "SURVIVED" else " ".join(mutation.tests), time.monotonic() - began
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", default="", help="mutations whose name or file contains this")
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    mutations = [m for m in MUTATIONS if given.only in m.name or given.only in m.file]
    tests = tuple(sorted({test for mutation in mutations for test in mutation.tests}))
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="unbroken-") as scratch:
        code, said = run_tests(copied(Path(scratch)), tests)
    print(f"{'ok' if code == 0 else 'FAILED':15}unbroken{'' if code == 0 else ': ' + said}", flush=True)
    if code != 0:
        return 1
    outcomes = []
    with ThreadPoolExecutor(given.jobs) as pool:
        for outcome in pool.map(judge, mutations):
            outcomes.append(outcome)
            line = f"{outcome.verdict:15}{outcome.mutation.name:58}{outcome.seconds:5.0f} s  {outcome.by}"
            print(line, flush=True)
    missed = [outcome for outcome in outcomes if outcome.verdict != "caught"]
    caught, seconds = len(outcomes) - len(missed), time.monotonic() - began
    print(f"{caught} of {len(outcomes)} mutants caught; {seconds:.0f} seconds")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
