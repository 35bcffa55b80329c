"""Programs under torchrun, with gloo, and with a hard limit of time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch.distributed

ROOT = Path(__file__).parents[2]
LIMIT = 120  # seconds, for a launch that hangs
FULL = os.environ.get("TREADLE_DISTRIBUTED") == "full"
"""Whether every case is run, as `make distributed` does, or a selection."""

ONLY_FULL = pytest.mark.skipif(not FULL, reason="`make distributed` runs it")

MARKS = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="torch was built without gloo"),
]


def environment() -> dict[str, str]:
    """What the processes find: this package, one thread, no warnings made errors."""
    paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    # Without it restarts after a kill hang at times, with gloo; see the guide.
    variables["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    variables.pop("PYTHONWARNINGS", None)
    return variables


def torchrun(
    ranks: int, program: Path, *arguments: str, options: tuple[str, ...] = ()
) -> tuple[int, str, float]:
    """Exit code, what was printed, and when it ended; nobody outlives the limit."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    return bounded([*start, *options, str(program), *arguments])


def bounded(command: list[str], **variables: str) -> tuple[int, str, float]:
    """Run a command with its children; see `torchrun`."""
    process = subprocess.Popen(
        command,
        env=environment() | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        output, _ = process.communicate()
        pytest.fail(f"{command} hangs:\n{output[-4000:]}")
    return process.returncode, output, time.time()
