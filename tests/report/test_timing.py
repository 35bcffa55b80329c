"""Where the time went."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from treadle.report.timing import duration, times_of
from treadle.runs import Run


def test_parts_add_up_to_the_running_time(tmp_path: Path) -> None:
    with Run.create(tmp_path / "run") as run:
        start = run.created
        for epoch in range(3):
            at = start + 10 * epoch
            values = {"time/start": at, "time/end": at + 9, "time/epoch": 7.0, "time/data": 1.5}
            run.append_epoch(epoch + 1, epoch + 1, values)
        run.update(status="finished", preparation_seconds=2.5)
    times = times_of(run)
    parts = {part.name.partition(" (")[0]: part.seconds for part in times.parts}
    assert parts["preparation"] == 2.5
    assert parts["training"] == 21.0
    assert parts["evaluation"] == pytest.approx(6.0)
    assert times.inside == [("time/data", 4.5)]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, "0 s"),
        (1.234, "1.23 s"),
        (59.96, "60.0 s"),
        (184.0, "3 min 4 s"),
        (18_390.0, "5 h 6 min"),
        (633_600.0, "7 d 8 h"),
        (math.nan, "-"),
        (math.inf, "-"),
    ],
)
def test_durations_read_well(seconds: float, said: str) -> None:
    assert duration(seconds) == said
