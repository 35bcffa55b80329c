"""Where the time went."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from treadle.report.timing import duration, times_of
from treadle.runs import Run


@pytest.mark.parametrize("measured", [{}, {"time/data": 1.5, "time/backward": 2.5, "time/checkpoint": 0.25}])
def test_parts_add_up_to_the_running_time(tmp_path: Path, measured: dict[str, float]) -> None:
    with Run.create(tmp_path / "run") as run:
        start = run.created
        for epoch in range(3):
            at = start + 10 * epoch
            values = {"time/start": at, "time/end": at + 9, "time/epoch": 7.0}
            run.append_epoch(epoch + 1, epoch + 1, values | measured)
        run.update(status="finished", preparation_seconds=2.5, saving_seconds=1.25)
    times = times_of(run)
    parts = {part.name.partition(" (")[0]: part.seconds for part in times.parts}
    assert parts["preparation"] == 2.5
    assert parts["evaluation"] == pytest.approx(6.0)
    assert parts["checkpoints"] == 1.25
    if measured:
        assert (parts["data"], parts["backward"], "training" in parts) == (4.5, 7.5, False)
        assert parts["rest of the steps"] == pytest.approx(21.0 - 4.5 - 7.5 - 0.75)
    else:
        assert parts["training"] == 21.0


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
