"""What goes wrong inside a training: each scene is a context manager that the server enters in the child."""

from __future__ import annotations

import builtins
import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from tests.crash import program

from treadle.checkpoint import files as checkpoint_files
from treadle.runs import files as run_files
from treadle.runs import folders as run_folders

CHANGING = ("write", "fsync", "rename", "replace", "mkdir", "unlink", "rmdir")


class Disk:
    """Stands between Treadle's files and the system: counts the calls that change the disk, and at one of
    them kills this process, really, or has the call fail.

    Args:
        at: the number of the call, from 0; None only counts.
        how: "before", "after" or "halfway" (a write) to be killed; the name of an error ("EIO") to fail.
        lasting: whether the calls after it fail too.
        only: fail only calls on paths that contain this.
    """

    def __init__(
        self, at: int | None = None, how: str = "before", lasting: bool = False, only: str = ""
    ) -> None:
        self.at, self.how, self.lasting, self.only = at, how, lasting, only
        self.calls: list[str] = []
        self.names: dict[Any, str] = {}

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name == "open":
            return self._open
        if name not in CHANGING:
            return real
        return lambda *arguments, **options: self.call(name, real, *arguments, **options)

    def _open(self, path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        descriptor = (
            self.call("open", os.open, path, flags, *arguments, **options)
            if flags & os.O_CREAT
            else os.open(path, flags, *arguments, **options)
        )
        self.names[descriptor] = str(path)
        return int(descriptor)

    def call(self, name: str, real: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        subject = self.names.get(arguments[0], str(arguments[0]))
        if self.only not in subject:
            return real(*arguments, **options)
        self.calls.append(name)
        number = len(self.calls) - 1
        if self.at is None or number < self.at or (number > self.at and not self.lasting):
            return real(*arguments, **options)
        if self.how.startswith("E"):
            code = getattr(errno, self.how)
            raise OSError(code, os.strerror(code), subject)
        if self.how == "after":
            real(*arguments, **options)
        if self.how == "halfway" and name == "write":
            real(arguments[0], arguments[1][: len(arguments[1]) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("a killed process does not get here")

    def open_text(self, path: Any, *arguments: Any, **options: Any) -> Any:
        """The `open` of files.py in runs, whose file is written as one text."""
        file = builtins.open(path, *arguments, **options)  # noqa: SIM115 - the caller closes it
        self.names[file.fileno()] = str(path)
        real = file.write

        def write(text: str) -> None:
            self.call("write", lambda _, part: real(part), file.fileno(), text)
            file.flush()

        file.write = write
        return file


@contextmanager
def dying_disk(report: str = "", **options: Any) -> Iterator[Disk]:
    """A disk at one of whose calls this process dies, or which fails."""
    disk = Disk(**options)
    with (
        mock.patch.object(checkpoint_files, "os", disk),
        mock.patch.object(run_files, "os", disk),
        mock.patch.object(run_folders, "os", disk),
        mock.patch.object(run_files, "open", disk.open_text, create=True),
    ):
        yield disk
    if report:
        Path(report).write_text("\n".join(disk.calls))


@contextmanager
def listening(hook: str, act: Callable[[Any], None]) -> Iterator[None]:
    """Have `act` called with the state at a hook of the program's own callback."""
    before = getattr(program.Order, hook)

    def both(self: program.Order, state: Any) -> None:
        before(self, state)
        act(state)

    with mock.patch.object(program.Order, hook, both):
        yield


def long_step(step: int, seconds: float) -> AbstractContextManager[None]:
    """One step takes its time."""

    def act(state: Any) -> None:
        if state.progress.step == step - 1:
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                time.sleep(0.01)

    return listening("on_batch_start", act)


def mistake(*_: Any, **__: Any) -> Any:
    raise RuntimeError("the user's mistake")


@contextmanager
def exception(where: str, step: int) -> Iterator[None]:
    """The user's code fails somewhere, in a step or where it is next."""
    reached = []

    def act(state: Any) -> None:
        if state.progress.step >= step - 1 or where == "on_fit_start":
            mistake()

    if where.startswith("on_"):
        with listening(where, act):
            yield
        return
    subject, name = {
        "dataset": (program.Samples, "__getitem__"),
        "loss": (program, "cross_entropy"),
        "transform of the model": (torch.nn.ReLU, "forward"),
    }[where]
    real = getattr(subject, name)

    def armed(*arguments: Any, **options: Any) -> Any:
        return mistake() if reached else real(*arguments, **options)

    def arm(state: Any) -> None:
        if state.progress.step == step - 1:
            reached.append(step)

    with mock.patch.object(subject, name, armed), listening("on_step_end", arm):
        yield


def filled_disk(step: int, filler: str) -> AbstractContextManager[None]:
    """Before a step somebody else fills the disk to the last byte."""

    def act(state: Any) -> None:
        if state.progress.step == step - 1:
            with builtins.open(filler, "wb", buffering=0) as file, suppress(OSError):
                for size in (65536, 4096, 1):
                    with suppress(OSError):
                        while file.write(bytes(size)):
                            pass

    return listening("on_batch_start", act)


def clock(back: float) -> AbstractContextManager[Any]:
    """The computer's clock is set back."""
    real = time.time

    def earlier() -> float:
        return real() - back

    return mock.patch.object(time, "time", earlier)


SCENES: dict[str, Callable[..., AbstractContextManager[Any]]] = {
    "nothing": nullcontext,
    "dying disk": dying_disk,
    "long step": long_step,
    "exception": exception,
    "filled disk": filled_disk,
    "clock": clock,
}
