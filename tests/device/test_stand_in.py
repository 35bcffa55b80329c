"""Everything on a device that is not the CPU: the same bits as on it, and no waiting within a step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.device import scenes, stand_in

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or stand_in.compiler() is None, reason="needs Linux and g++, to make the device"
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process found whose accelerator the device is."""
    folder = tmp_path_factory.mktemp("device")
    stand_in.build(folder / "stand_in.so")
    done = subprocess.run(
        [sys.executable, "-m", "tests.device.scenes", str(folder / "stand_in.so"), str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-4000:]
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


@pytest.mark.parametrize("name", scenes.RUNS)
def test_a_run_on_a_device_is_the_run_on_the_cpu(report: dict[str, Any], name: str) -> None:
    """Weights, curves, evaluations, predictions and results: to the last bit."""
    one, other = report["runs"][name]["cpu"], report["runs"][name][stand_in.NAME]
    assert one.pop("placed") == ["cpu"]
    assert other.pop("placed") == [stand_in.NAME]
    assert len(one) >= 3
    assert one == other


def test_a_run_goes_on_on_either_device(report: dict[str, Any]) -> None:
    """From each to each, cut after some steps: one result, and the device's generator where it belongs."""
    ends = [end for ends in report["resumed"].values() for end in ends]
    assert len(ends) == 16
    assert all(end == ends[0] for end in ends)
    assert ends[0][1] == [5 + 16] * 16


def test_nothing_is_waited_for_within_a_step(report: dict[str, Any]) -> None:
    reads = report["reads"]
    steps = [name for name in reads if name in scenes.RUNS]
    assert len(steps) == len(scenes.STEPS)
    assert {name: reads[name] for name in steps} == dict.fromkeys(steps, 0)
    assert reads["a number"] == 1  # that the count counts


def test_looks_wait_no_more_often_for_many_batches(report: dict[str, Any]) -> None:
    reads = report["reads"]
    assert reads["evaluate, 2 batches"] == reads["evaluate, 52 batches"] <= 4
    assert reads["predict, 2 batches"] == reads["predict, 52 batches"] == 1


def test_the_device_is_found_by_itself(report: dict[str, Any]) -> None:
    found = report["automatic"]
    assert found["device"] == stand_in.NAME
    assert found["loaded"] == ["cpu"]
    assert found["batch size"] == 16
    assert found["rates"] > 5
