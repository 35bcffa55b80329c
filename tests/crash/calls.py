"""Deaths at every call that changes the disk, while a training goes on for its last step.

In that step it makes a metric flush, a checkpoint, a retention pass, an epoch's row, the checkpoint of the
same step again, and the run's end.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.crash.chain import newest_step
from tests.crash.client import Server
from tests.crash.program import Setting, differences, record_of

LAST = Setting(
    "last step",
    samples=8,
    epochs=3,
    dropout=0.3,
    augment=True,
    scheduler="step",
    averaging=True,
    background=False,
    keep_last=1,
    log_every=1,
)
STEPS = 6

STORE_CALLS = ("pwrite64", "fdatasync", "ftruncate")
"""What SQLite changes the disk with, and nobody else here does."""

ALL_CALLS = (
    *STORE_CALLS,
    *("write", "fsync", "rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "rmdir"),
)


@dataclass
class Deaths:
    """What came of dying at every call."""

    calls: Counter[str] = field(default_factory=Counter)
    deaths: int = 0
    found: Counter[int] = field(default_factory=Counter)  # the newest step after the death
    wrong: list[str] = field(default_factory=list)


class Stage:
    """An uninterrupted training, and a folder of the same that stands before its last step."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder
        server.start(LAST, folder / "whole").finish()
        self.whole = record_of(folder / "whole")
        # Killed in the midst of writing its last checkpoint; how many calls that is, does not matter.
        log = folder / "calls"
        death = {"at": 0, "how": "before", "only": f".step-{STEPS:08d}.new-"}
        code = server.start(LAST, folder / "stage", scene="dying disk", details=death).wait()
        assert code == -signal.SIGKILL
        assert newest_step(folder / "stage") == STEPS - 1
        log.unlink(missing_ok=True)
        self._number = 0

    def copy(self) -> Path:
        self._number += 1
        return Path(shutil.copytree(self.folder / "stage", self.folder / f"life-{self._number}"))

    def calls(self) -> list[str]:
        """The calls that change the disk in Treadle's own files."""
        report = self.folder / "calls"
        place = self.copy()
        options = {"scene": "dying disk", "details": {"report": str(report)}}
        self.server.start(LAST, place, **options).finish()
        shutil.rmtree(place)
        return report.read_text().split("\n")

    def die(self, deaths: Deaths, where: str, **options: Any) -> None:
        """One life that dies where it is told to, and one that goes on to the end."""
        place = self.copy()
        training = self.server.start(LAST, place, stopped="traced" in options, **options.get("life", {}))
        tracer = None
        if "traced" in options:
            name, number = options["traced"]
            inject = f"inject={name}:signal=SIGKILL:when={number}"
            tracer = _trace(training.pid, inject, name, Path("/dev/null"))
        code = training.wait()
        if tracer is not None:
            tracer.wait(30)
        if code != 0:
            assert code == -signal.SIGKILL, training.said()
            deaths.deaths += 1
            deaths.found[newest_step(place)] += 1
        step = newest_step(place)
        self.server.start(LAST, place).finish()
        wrong = differences(self.whole, record_of(place))
        leftovers = [path.name for path in (place / "checkpoints").iterdir() if path.name.startswith(".step")]
        if wrong or leftovers or step not in (STEPS - 1, STEPS):
            deaths.wrong.append(f"{where}: found step {step}, {wrong}, left {leftovers}, see {place}")
        else:
            shutil.rmtree(place)

    def traced_calls(self, names: tuple[str, ...]) -> list[tuple[str, int]]:
        """The system calls of these names, in order, each with its number among those of its name."""
        place, log = self.copy(), self.folder / "trace"
        training = self.server.start(LAST, place, stopped=True)
        tracer = _trace(training.pid, "inject=none", ",".join(names), log)
        training.finish()
        tracer.wait(30)
        shutil.rmtree(place)
        found = re.findall(r"^(?:\d+ +)?(\w+)\(", log.read_text(), re.MULTILINE)
        seen: Counter[str] = Counter()
        calls = []
        for name in found:
            seen[name] += 1
            calls.append((name, seen[name]))
        return calls


def die_at_every_call(stage: Stage, ways: tuple[str, ...], stride: int = 1) -> Deaths:
    """Die before, after or halfway through each `stride`-th call of Treadle's own files."""
    deaths = Deaths()
    names = stage.calls()
    deaths.calls.update(names)
    for number, name in list(enumerate(names))[::stride]:
        for how in ways:
            if how != "halfway" or name == "write":
                life = {"scene": "dying disk", "details": {"at": number, "how": how}}
                stage.die(deaths, f"{how} call {number} ({name})", life=life)
    return deaths


def die_at_every_system_call(stage: Stage, names: tuple[str, ...], stride: int = 1) -> Deaths:
    """Die as each `stride`-th system call of these names begins, by strace; that is after the one before."""
    deaths = Deaths()
    calls = stage.traced_calls(names)[::stride]
    deaths.calls.update(name for name, _ in calls)
    for name, number in calls:
        stage.die(deaths, f"system call {name} {number}", traced=(name, number))
    return deaths


def _trace(pid: int, inject: str, names: str, log: Path) -> subprocess.Popen[bytes]:
    """Attach strace to a stopped process and let it go on."""
    _until(pid, "State:\tT")  # it has stopped itself
    command = ["strace", "-f", "-q", "-o", str(log), "-p", str(pid), "-e", f"trace={names}"]
    command += [] if inject == "inject=none" else ["-e", inject]
    tracer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    _until(pid, f"TracerPid:\t{tracer.pid}\n")
    os.kill(pid, signal.SIGCONT)
    return tracer


def _until(pid: int, line: str) -> None:
    deadline = time.monotonic() + 30
    while line not in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < deadline, f"process {pid} never had {line!r}"
        time.sleep(0.002)
