"""The side of the tests: start trainings, kill them, wait for them, never for longer than a limit."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.crash.program import Setting

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 120.0
"""Seconds after which something hangs."""


class HangError(AssertionError):
    """Something did not end within the limit."""


class Server:
    """The process that forks trainings; a context manager that leaves no process behind."""

    def __init__(self) -> None:
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        self._groups: set[int] = set()
        assert self._answer(LIMIT) == {"ready": True}

    def start(self, setting: Setting, folder: Path, log: Path | None = None, **options: Any) -> Training:
        """Fork a training that goes on with the newest run of `folder`; see `server.live` for options."""
        log = log or folder.with_name(f"{folder.name}.log")
        log.unlink(missing_ok=True)
        command = {"do": "start", "setting": {**asdict(setting), "folder": str(folder)}, "log": str(log)}
        pid = self._ask({**command, **options})["pid"]
        self._groups.add(pid)
        return Training(self, pid, log)

    def wait(self, pid: int, seconds: float) -> int | None:
        code = self._ask({"do": "wait", "pid": pid, "seconds": seconds}, seconds + 30)["code"]
        return None if code is None else int(code)

    def survivors(self, seconds: float = 20.0) -> set[int]:
        """Process groups (trainings and the workers they left behind) that are not gone by then."""
        deadline = time.monotonic() + seconds
        while self._groups and time.monotonic() < deadline:
            self._groups = {group for group in self._groups if _lives(group)}
            time.sleep(0.05)
        return self._groups

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for group in self._groups:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        self._process.kill()
        self._process.communicate()

    def _ask(self, command: Mapping[str, Any], limit: float = LIMIT) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._answer(limit)

    def _answer(self, limit: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], limit)
        if not ready:
            raise HangError(f"the server said nothing for {limit:g} seconds")
        line = self._process.stdout.readline()
        assert line, "the server is gone"
        answer: dict[str, Any] = json.loads(line)
        return answer


class Training:
    """A training in a process of its own."""

    def __init__(self, server: Server, pid: int, log: Path) -> None:
        self._server, self.pid, self.log = server, pid, log

    def send(self, number: int) -> None:
        """Send a signal to the trainer alone, not to its workers."""
        os.kill(self.pid, number)

    def kill(self, seconds: float) -> bool:
        """SIGKILL after so long; False where it had ended by itself, well."""
        code = self._server.wait(self.pid, seconds)
        if code is None:
            self.send(signal.SIGKILL)
            code = self.wait(within=30)
        assert code in (0, -signal.SIGKILL), f"exit {code}:\n{self.said()}"
        return code != 0

    def wait(self, within: float = LIMIT) -> int:
        """The exit code, or minus the signal; a training that takes longer is killed and hangs."""
        code = self._server.wait(self.pid, within)
        if code is None:
            stack = self.said()
            os.killpg(self.pid, signal.SIGKILL)
            raise HangError(f"no end after {within:g} seconds:\n{stack}")
        return code

    def finish(self, within: float = LIMIT) -> None:
        """Wait for a good end."""
        code = self.wait(within)
        assert code == 0, f"exit {code}:\n{self.said()}"

    def said(self) -> str:
        """All it has printed."""
        return self.log.read_text() if self.log.exists() else ""


def _lives(group: int) -> bool:
    """Whether a process of this group still runs; what only waits to be reaped does not."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, IndexError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[2]) == group and fields[0] not in "ZX":
                    return True
    return False
