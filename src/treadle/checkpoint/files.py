"""Every call on the file system that a checkpoint makes, as plain functions.

They are all here so that a test can name each single one, fail it or die at it. POSIX only.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from treadle.checkpoint.errors import CheckpointError

LOCK_NAME = ".lock"
_BLOCK = 1 << 20
_threads = threading.Lock()


def make_folder(path: Path) -> None:
    """Make one folder; it must not exist yet."""
    os.mkdir(path)


def make_parents(path: Path) -> None:
    """Make a folder and those above it that are missing, each recorded durably in the one above."""
    if path.is_dir():
        return
    make_parents(path.parent)
    try:
        make_folder(path)
    except FileExistsError:
        return
    sync_folder(path.parent)


def write_file(path: Path, pieces: Iterable[bytes | memoryview]) -> tuple[int, str]:
    """Write a new file and sync it; small pieces are gathered, so a thousand tensors are a few writes.

    Returns:
        Its size in bytes and the SHA-256 of what was handed over, in hexadecimal.
    """
    size, digest = 0, hashlib.sha256()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        for block in _gather(pieces):
            digest.update(block)
            size += len(block)
            _write_all(descriptor, block)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return size, digest.hexdigest()


def _gather(pieces: Iterable[bytes | memoryview]) -> Iterator[memoryview]:
    pending = bytearray()
    for piece in pieces:
        view = memoryview(piece).cast("B")
        if len(view) < _BLOCK:
            pending += view
            if len(pending) < _BLOCK:
                continue
        if pending:
            yield memoryview(pending)
            pending = bytearray()
        if len(view) >= _BLOCK:
            yield view
    if pending:
        yield memoryview(pending)


def _write_all(descriptor: int, view: memoryview) -> None:
    while view:
        view = view[os.write(descriptor, view) :]


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename(old: Path, new: Path) -> None:
    """Give a folder another name on the same file system, in one step."""
    os.rename(old, new)


def remove_tree(path: Path) -> None:
    """Remove a folder and all in it; links are removed, never followed."""
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        os.unlink(path)
        return
    for name in os.listdir(path):
        remove_tree(path / name)
    os.rmdir(path)


def free_bytes(path: Path) -> int:
    """The room an ordinary user has on the file system of `path`, in bytes."""
    room = os.statvfs(path)
    return room.f_bavail * room.f_frsize


@contextmanager
def locked(folder: Path, timeout: float = 60.0) -> Iterator[None]:
    """Hold the folder for one change: other threads and processes wait.

    The lock goes when its process dies. Where the file system has no locks, one writer for each folder
    is taken on trust.

    Raises:
        CheckpointError: another process held it for `timeout` seconds.
    """
    with _threads:
        descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _lock(descriptor, folder, timeout)
            yield
        finally:
            os.close(descriptor)  # closing is what gives a POSIX lock back


def _lock(descriptor: int, folder: Path, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            # Not flock: worker processes would inherit it and outlive a killed trainer with it.
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                return
        if time.monotonic() > deadline:
            raise CheckpointError(f"{folder}: another process has been writing here for {timeout:g} seconds")
        time.sleep(0.05)


def open_folder(path: Path) -> int:
    """A descriptor of a real folder (not of a link to one), so that what is read from it belongs together."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def open_file(folder: int, name: str) -> int:
    """A descriptor of a regular file in an open folder; links, pipes and devices are refused.

    Raises:
        OSError: there is no such file, it cannot be read, or it is a link.
        CheckpointError: it is something else than a file.
    """
    # O_NONBLOCK: opening a pipe that nobody writes to must not wait.
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise CheckpointError(f"{name}: not a regular file")
    return descriptor
