"""How fast training goes, and how much memory it takes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

from treadle.callbacks.points import record
from treadle.events import Callback
from treadle.state import State


class Throughput(Callback):
    """Record speed and memory at every log boundary, where the host waits for the device anyway.

    The series are "time/samples_per_second" (this process's samples; left out where only the device
    counts them), "time/step_seconds", both since the boundary before and without evaluations, and
    "time/memory_bytes": the peak of allocated memory on a CUDA device, else the memory of the process.
    What depends on the machine is under "time/", and nothing that the run computes depends on it.

    Args:
        clock: gives seconds; only differences count.
    """

    order = -100.0

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._since: tuple[float, int, int] | None = None
        self._paused = 0.0

    def on_fit_start(self, state: State) -> None:
        """Nothing is measured yet."""
        self._since = None

    def on_step_start(self, state: State) -> None:
        """The clock starts with the first step."""
        if self._since is None:
            self._start(state)

    def on_eval_start(self, state: State) -> None:
        """Evaluations do not count."""
        self._paused = self._clock()

    def on_eval_end(self, state: State) -> None:
        """Training goes on."""
        if self._since is not None:
            now, samples, steps = self._since
            self._since = (now + self._clock() - self._paused, samples, steps)

    def on_log(self, state: State) -> None:
        """Record what has gone by since the last time."""
        if self._since is None:
            return
        then, samples, step = self._since
        seconds, steps = self._clock() - then, state.progress.step - step
        if steps <= 0 or seconds <= 0:
            return
        values = {"time/step_seconds": seconds / steps, "time/memory_bytes": memory(state.engine.device)}
        if state.progress.samples > samples:
            values["time/samples_per_second"] = (state.progress.samples - samples) / seconds
        record(state, [(name, state.progress.step, value) for name, value in sorted(values.items())])
        self._start(state)

    def _start(self, state: State) -> None:
        self._since = (self._clock(), state.progress.samples, state.progress.step)


def memory(device: torch.device) -> float:
    """Bytes: the peak allocated on a CUDA device, else what the process has in memory now."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    try:
        return float(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):  # not Linux: the peak, which is what the system tells
        return _peak()


def _peak() -> float:
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    unit = 1 if os.uname().sysname == "Darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
