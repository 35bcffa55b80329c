"""What trackio's database holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trackio", reason="trackio is not installed: pip install 'treadle[trackio]'")

PROGRAM = """
import sys, torch; from pathlib import Path
torch.set_num_threads(1)
from tests.loggers.training import cut_and_resumed, expected, train
from treadle.loggers import TrackioLogger
import json
make = lambda: TrackioLogger(timeout=60)
folder = Path(sys.argv[1])
run = train(folder, [make()]) if sys.argv[2] == "whole" else cut_and_resumed(folder, make)
from trackio.sqlite_storage import SQLiteStorage
print(json.dumps({
    "expected": [[list(key), value] for key, value in expected(run).items()],
    "logs": SQLiteStorage.get_logs("treadle", f"{run.name}-{run.id}"),
}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["whole", "cut"])
def test_everything_is_there_once(tmp_path: Path, how: str) -> None:
    """In a process of its own: trackio asks once, when it is imported, where its database is."""
    from tests.loggers.training import MEDIA

    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "run"), how]
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
    root = Path(__file__).parents[2]
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    said: dict[str, Any] = json.loads(done.stdout.strip().split("\n")[-1])
    expected = {(name, step): value for (name, step), value in said["expected"]}
    values = [
        ((name, row["step"]), value)
        for row in said["logs"]
        for name, value in row.items()
        if name not in ("step", "timestamp") and isinstance(value, float | int)
    ]
    assert len(values) == len(dict(values))
    assert dict(values) == expected
    for name in ("train/remark", "train/weights", "train/spread"):
        assert [row["step"] for row in said["logs"] if name in row] == list(MEDIA)
