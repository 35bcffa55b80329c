"""Where the time of a run went, as far as it is recorded."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from treadle.runs import Run

_OWN = ("time/start", "time/end", "time/epoch")


class Part(NamedTuple):
    """Something that took time."""

    name: str
    seconds: float


class Times(NamedTuple):
    """The time of a run.

    Attributes:
        running: seconds during which the run went on, without the breaks before it was resumed.
        breaks: seconds between an end and the resume after it.
        parts: what they add up to, without the preparation, which comes before the record begins.
        inside: what was measured inside of training ("time/..." columns of the history), longest first.
    """

    running: float
    breaks: float
    parts: list[Part]
    inside: list[Part]


def breaks_of(run: Run) -> list[tuple[float, float]]:
    """The breaks before each resume: when the run was last seen before it, and when it went on."""
    known = sorted([*run.clock.times.tolist(), *(event.time for event in run.events)])
    found = []
    for event in run.events:
        if event.kind == "resumed":
            before = [time for time in known if time < event.time]
            found.append((before[-1] if before else run.created, event.time))
    return found


def running_time(run: Run) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """When which step was reached, in seconds of running; two arrays of one length."""
    clock = run.clock
    seconds = clock.times - run.created
    for began, ended in breaks_of(run):
        seconds = seconds - np.clip(clock.times - began, 0.0, ended - began)
    return clock.steps, np.maximum.accumulate(np.maximum(seconds, 0.0)) if len(seconds) else seconds


def times_of(run: Run) -> Times:
    """Where the time went."""
    clock = run.clock.times
    end = run.ended if run.ended is not None else float(clock[-1]) if len(clock) else run.created
    breaks = sum(ended - began for began, ended in breaks_of(run))
    running = max(0.0, end - run.created - breaks)
    rows = [row for row in run.durations if all(map(math.isfinite, row[1:]))]
    training = sum(max(row.seconds, 0.0) for row in rows)
    looking = sum(max(row.end - row.start - row.seconds, 0.0) for row in rows)
    parts = [
        Part("training", training),
        Part("evaluation", looking),
        Part("other (checkpoints, callbacks, what is not recorded)", max(0.0, running - training - looking)),
    ]
    preparation = run.fields.get("preparation_seconds")
    if isinstance(preparation, (int, float)) and math.isfinite(preparation) and preparation > 0:
        parts.insert(0, Part("preparation (before the record begins)", float(preparation)))
    return Times(running, breaks, [part for part in parts if part.seconds > 0], _inside(run))


def _inside(run: Run) -> list[Part]:
    history = run.history
    names = [name for name in history if name.startswith("time/") and name not in _OWN]
    sums = [Part(name, sum(value for value in history[name] if math.isfinite(value))) for name in names]
    return sorted((part for part in sums if part.seconds > 0), key=lambda part: -part.seconds)


def duration(seconds: float) -> str:
    """1.2 s, 3 min 4 s, 5 h 6 min, 7 d 8 h."""
    if not math.isfinite(seconds):
        return "-"
    if seconds < 60:
        return f"{seconds:.3g} s" if seconds < 10 else f"{seconds:.1f} s"
    for unit, size, smaller, part in (("min", 60, "s", 1), ("h", 3600, "min", 60), ("d", 86400, "h", 3600)):
        if unit == "d" or seconds < size * (60 if unit == "min" else 24):
            return f"{int(seconds // size)} {unit} {int(seconds % size // part)} {smaller}"
    raise AssertionError
