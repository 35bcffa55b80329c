"""Files of a run folder: written whole or not at all, by one process at a time."""

from __future__ import annotations

import importlib
import json
import math
import os
import secrets
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from treadle.runs.errors import RunError

# Windows has no flock; there the status in run.json is believed.
fcntl: Any = importlib.import_module("fcntl") if os.name == "posix" else None

LOCK = ".lock"
_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_held: weakref.WeakSet[Lock] = weakref.WeakSet()


def plain(value: Any, where: str) -> Any:
    """`value` as strict JSON can hold it: NaN and infinities become {"$float": "nan"}, tuples lists.

    Raises:
        RunError: something in it is no number, string, list, dictionary or path; the message says where.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"$float": str(float(value))}
    if isinstance(value, np.generic):
        return plain(value.item(), where)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {_key(key, where): plain(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
        return [plain(item, f"{where}[{number}]") for number, item in enumerate(items)]
    allowed = "None, bool, int, float, str, path, list, tuple, set, dict with str keys"
    raise RunError(
        where, f"{value!r} of type {type(value).__name__} cannot be recorded; allowed are {allowed}"
    )


def encode(value: Any, where: str) -> str:
    """Strict JSON of `value` on one line."""
    return json.dumps(plain(value, where), allow_nan=False, ensure_ascii=False)


def decode(text: str | bytes) -> Any:
    """What `encode` was given; ValueError (also for bytes that are no text) if it is damaged."""
    return json.loads(text, object_hook=_revive)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace the file at once and durably: a kill or a power cut leaves the old or the new one."""
    text = json.dumps(plain(value, path.name), allow_nan=False, ensure_ascii=False, indent=2) + "\n"
    write_text(path, text)


def write_text(path: Path, text: str) -> None:
    """Write beside the final name, sync, rename, sync the folder."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "x", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote.

    Raises:
        RunError: the file is missing, cannot be read, or does not hold a JSON object.
    """
    try:
        value = decode(path.read_bytes())
    except FileNotFoundError:
        raise RunError(path.parent, f"there is no {path.name}; this is not a run folder") from None
    except OSError as error:
        raise RunError(path, f"cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RunError(path, f"is damaged: {error}") from error
    if not isinstance(value, dict):
        raise RunError(path, f"is damaged: it holds a {type(value).__name__}, not an object")
    return value


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system lets a folder be opened."""
    if os.name == "nt":  # pragma: no cover
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Lock:
    """The writer's lock on a run folder: an advisory one, which the system drops when the process ends.

    Raises:
        RunError: another process (or another open `Run`) writes this run.
    """

    def __init__(self, folder: Path) -> None:
        self._descriptor: int | None = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        if not self._acquire(self._descriptor):
            self.release()
            raise RunError(folder, "is being written by another process")
        _held.add(self)

    def _acquire(self, descriptor: int) -> bool:
        if fcntl is None:  # pragma: no cover
            return True
        # A reader that asks whether a writer is alive holds the lock for an instant: try for a while.
        for _ in range(20):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.05)
            except OSError:
                return True  # a file system without locks
            else:
                return True
        return False

    def release(self) -> None:
        """Let others write."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def is_locked(folder: Path) -> bool | None:
    """Whether a living process writes this run; None where the system cannot tell."""
    if fcntl is None:  # pragma: no cover
        return None
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return False


def _release_in_child() -> None:
    # A forked data worker shares the lock and would keep it after its parent is killed.
    for lock in list(_held):
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_in_child)


def _key(key: Any, where: str) -> str:
    if not isinstance(key, str):
        raise RunError(where, f"the key {key!r} is a {type(key).__name__}; keys must be strings")
    return key


def _revive(value: dict[str, Any]) -> Any:
    return (
        _NON_FINITE[value["$float"]]
        if value.keys() == {"$float"} and value["$float"] in _NON_FINITE
        else value
    )
