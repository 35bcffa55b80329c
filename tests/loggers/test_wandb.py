"""What wandb writes offline, read with its own reader."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.loggers.training import MEDIA, cut_and_resumed, expected, train

from treadle.loggers import WandbLogger

BLOCK = 32_768

pytest.importorskip("wandb", reason="wandb is not installed: pip install 'treadle[wandb]'")
pytestmark = pytest.mark.filterwarnings("ignore")


def pieces(data: bytes) -> Iterator[bytes]:
    """The records of a file: LevelDB's log format behind seven bytes that say whose it is."""
    assert data.startswith(b":W&B")
    at, whole = 7, b""
    while at + 7 <= len(data):
        left = BLOCK - at % BLOCK
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        at += 7
        whole += data[at : at + length]
        at += length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield whole
            whole = b""


def records(folder: Path) -> list[Any]:
    from wandb.proto import wandb_internal_pb2

    found = []
    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for piece in pieces(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(piece)
            found.append(record)
    return found


def exits(found: list[Any]) -> int:
    """How often it was said that a run has ended."""
    return sum(record.WhichOneof("record_type") == "exit" for record in found)


def rows(found: list[Any]) -> list[dict[str, Any]]:
    """What was logged together; what is more than a number is a dictionary of its parts."""
    rows = []
    for record in found:
        if record.WhichOneof("record_type") == "history":
            row: dict[str, Any] = {}
            for item in record.history.item:
                name, *part = item.nested_key or [item.key]
                value = json.loads(item.value_json)
                row[name] = {**row.get(name, {}), part[0]: value} if part else value
            rows.append(row)
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("how", ["whole", "cut"])
def test_everything_is_there_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    make = lambda: WandbLogger(timeout=60)  # noqa: E731
    folder = tmp_path / "run"
    run = train(folder, [make()]) if how == "whole" else cut_and_resumed(folder, make)
    found, deadline = records(folder), time.monotonic() + 20
    while time.monotonic() < deadline and exits(found) < (1 if how == "whole" else 2):
        time.sleep(0.05)  # wandb's own process writes the last of it a moment after `finish` has returned
        found = records(folder)
    begun = [record.run for record in found if record.WhichOneof("record_type") == "run"]
    assert {one.run_id for one in begun} == {run.id}
    assert any("optimizer" in str(one.config) for one in begun)
    values = [
        ((name, row["step"]), value)
        for row in rows(found)
        for name, value in row.items()
        if isinstance(value, float | int) and name != "step" and not name.startswith("_")
    ]
    assert len(values) == len(dict(values))
    assert dict(values) == expected(run)
    kinds = {"train/weights": "image-file", "train/remark": "html-file", "train/spread": "histogram"}
    for name, kind in kinds.items():
        shown = [(row["step"], row[name]["_type"]) for row in rows(found) if name in row]
        assert shown == [(step, kind) for step in MEDIA]
