"""A process that has imported torch once and forks a child for every training: no start-up to wait for.

It has one thread and never trains itself, so its children begin as clean as a new process. It reads one
JSON command a line and answers each with one line; see `tests.crash.client`.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from typing import Any

import torch
from tests.crash import program, scenes


def start(command: dict[str, Any]) -> dict[str, Any]:
    """Fork a child that trains; it is the leader of a process group of its own."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setpgid(0, 0)
            log = os.open(command["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(log, 1)
            os.dup2(log, 2)
            code = live(command)
        except BaseException:  # noqa: BLE001 - whatever it is, the child must not go on as a server
            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
            os._exit(code)
    with suppress(OSError):
        os.setpgid(child, child)
    return {"pid": child}


def live(command: dict[str, Any]) -> int:
    if command.get("largest_file"):
        # Python ignores SIGXFSZ, so a write past the limit is an error and not the end.
        resource.setrlimit(resource.RLIMIT_FSIZE, (command["largest_file"], command["largest_file"]))
    if command.get("user"):
        os.setgid(command["user"])
        os.setuid(command["user"])
    if command.get("stopped"):
        os.kill(os.getpid(), signal.SIGSTOP)
    try:
        with scenes.SCENES[command.get("scene", "nothing")](**command.get("details", {})):
            program.main(command["setting"])
    except SystemExit as leaving:
        return int(leaving.code or 0)
    except BaseException:  # noqa: BLE001 - as the interpreter does at its end
        traceback.print_exc()
        return 1
    finally:
        # What an interpreter does at its end and os._exit does not: wait for what is being written.
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
    return 0


def wait(command: dict[str, Any]) -> dict[str, Any]:
    """Wait for a child; its exit code, minus the signal it died of, or None where it still lives."""
    deadline = time.monotonic() + command["seconds"]
    while True:
        with suppress(ChildProcessError):
            pid, status = os.waitpid(command["pid"], os.WNOHANG)
            if pid:
                return {"code": os.waitstatus_to_exitcode(status)}
        if time.monotonic() > deadline:
            return {"code": None}
        time.sleep(0.002)


def main() -> None:
    torch.set_num_threads(1)
    # The first optimizer of a process imports for a second, which would be nearly all of a child's life.
    program.make_task(program.Setting()).configure_optimizers()
    assert threading.active_count() == 1
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        print(json.dumps({"start": start, "wait": wait}[command["do"]](command)), flush=True)


if __name__ == "__main__":
    main()
