"""Where the time of a run went, as far as it is recorded."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from treadle.runs import Run

_OWN = ("time/start", "time/end", "time/epoch")
_STEP = ("time/data", "time/forward", "time/backward", "time/optimizer")
_SAVED = "time/checkpoint"


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
    """

    running: float
    breaks: float
    parts: list[Part]


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
    saving = max(_field(run, "saving_seconds"), _sum_of(run, _SAVED))
    parts = [
        Part("preparation (before the record begins)", _field(run, "preparation_seconds")),
        *_training(run, training),
        Part("evaluation", looking),
        Part("checkpoints (what training waited for)", saving),
    ]
    known = training + looking + saving - _sum_of(run, _SAVED)  # those between steps are in the training
    parts.append(Part("other (callbacks at ends of epochs, what is not recorded)", max(0.0, running - known)))
    return Times(running, breaks, [part for part in parts if part.seconds > 0])


def _training(run: Run, seconds: float) -> list[Part]:
    """The parts of a step where they were measured, or the training as one."""
    parts = [Part(name.removeprefix("time/"), _sum_of(run, name)) for name in _STEP]
    measured = sum(part.seconds for part in parts) + _sum_of(run, _SAVED)
    if not measured > 0:
        return [Part("training", seconds)]
    return [*parts, Part("rest of the steps (the record, callbacks)", max(0.0, seconds - measured))]


def _sum_of(run: Run, name: str) -> float:
    """The sum of a column of the history, 0 where there is none."""
    return sum(value for value in run.history.get(name, ()) if math.isfinite(value))


def _field(run: Run, name: str) -> float:
    """Seconds in run.json, 0 where there are none, or nonsense."""
    value = run.fields.get(name)
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) and value > 0 else 0.0


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
