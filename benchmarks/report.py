"""What a report of ten million points costs: seconds, memory, size.

    python benchmarks/report.py [--points 10000000]

The run is made in a folder that is removed afterwards. The report is written by a process of its own, whose
time (from its start, imports included) and peak of memory are those of `treadle report`.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from treadle.runs import Run

NAMES = ("train/loss", "train/accuracy", "gradient/norm", "time/step_seconds", "learning_rate")
BLOCK = 100_000


def make(folder: Path, points: int) -> None:
    """A run of five series."""
    steps = points // len(NAMES)
    generator = np.random.default_rng(0)
    with Run.create(folder, name="ten million") as run:
        for start in range(0, steps, BLOCK):
            at = range(start + 1, min(start + BLOCK, steps) + 1)
            values = generator.random((len(NAMES), len(at)))
            run.append_steps(
                (name, step, value)
                for name, row in zip(NAMES, values.tolist(), strict=True)
                for step, value in zip(at, row, strict=True)
            )
        run.update(status="finished", reason="done", step=steps)


def main() -> None:
    """Make the run, report it, print the costs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=10_000_000)
    points = parser.parse_args().points
    with tempfile.TemporaryDirectory() as scratch:
        run, page = Path(scratch) / "run", Path(scratch) / "report.html"
        make(run, points)
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "treadle.cli", "report", run, "-o", page], check=True)
        seconds = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(f"{points} points in {os.path.getsize(run / 'metrics.sqlite') / 2**20:.0f} MiB")
        print(f"{seconds:.2f} s, {peak:.0f} MiB at the peak, a page of {page.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
