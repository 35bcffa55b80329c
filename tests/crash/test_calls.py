"""Killed at any call that changes the disk, a run is there as it was or as it will be, and ends the same."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from tests.crash.calls import (
    ALL_CALLS,
    STEPS,
    STORE_CALLS,
    Stage,
    die_at_every_call,
    die_at_every_system_call,
)
from tests.crash.client import Server

FULL = os.environ.get("TREADLE_CRASH") == "full"
"""Set by `make crash`: die before, after and halfway; at each call, not each third,
and each system call, not each fourth of SQLite's."""


@pytest.fixture(scope="module")
def stage(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    return Stage(server, tmp_path_factory.mktemp("calls"))


def strace_works() -> bool:
    if shutil.which("strace") is None:
        return False
    tried = ["strace", "-q", "-o", os.devnull, "true"]
    return subprocess.run(tried, capture_output=True, check=False).returncode == 0


@pytest.mark.slow
def test_killed_at_every_call_of_a_save(stage: Stage) -> None:
    deaths = die_at_every_call(stage, *((("before", "after", "halfway"), 1) if FULL else (("after",), 3)))
    print(
        f"{deaths.deaths} deaths at {deaths.calls.total()} calls: {dict(deaths.calls)}; {dict(deaths.found)}"
    )
    assert deaths.wrong == []
    assert deaths.calls.keys() == {"open", "write", "fsync", "rename", "replace", "mkdir", "unlink", "rmdir"}
    assert deaths.deaths >= deaths.calls.total() // (1 if FULL else 3)
    assert deaths.found.keys() == {STEPS - 1, STEPS}


@pytest.mark.slow
@pytest.mark.skipif(not strace_works(), reason="strace is not installed, or may not trace here")
def test_killed_at_every_call_of_the_metric_store(stage: Stage) -> None:
    names, stride = (ALL_CALLS, 1) if FULL else (STORE_CALLS, 4)
    deaths = die_at_every_system_call(stage, names, stride)
    print(
        f"{deaths.deaths} deaths at {deaths.calls.total()} calls: {dict(deaths.calls)}; {dict(deaths.found)}"
    )
    assert deaths.wrong == []
    assert {"pwrite64", "fdatasync"} <= deaths.calls.keys()
    assert deaths.deaths > 0.9 * deaths.calls.total()
