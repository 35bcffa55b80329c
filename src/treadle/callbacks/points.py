"""Values that a callback measures itself and records beside those that the task logs."""

from __future__ import annotations

from treadle.log import Point
from treadle.state import State


def record(state: State, points: list[Point]) -> None:
    """Record points under their names as they are; call it from `on_log`, before the loggers look."""
    if points:
        state.points = [*state.points, *points]
        state.latest.update((name, value) for name, _, value in points)
        state.run.append_steps(points)
