"""Names of run folders: a name is never used twice, and a half-made folder is never seen."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import re
import secrets
import shutil
import time
from pathlib import Path

from treadle.runs.errors import RunError
from treadle.runs.files import is_locked, read_json, sync_folder

RUN_FILE = "run.json"
_TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EBUSY, errno.EACCES, errno.EPERM}
_STALE_SECONDS = 3600.0


def free_path(path: Path | str) -> Path:
    """The first of path, path-2, path-3, ... that comes after every existing one. An empty folder is free."""
    return _first_free(_absolute(path), refused=set())


def newest_of(path: Path | str) -> Path | None:
    """The run of path, path-2, path-3, ... with the highest number, or None if there is none.

    A folder counts when its run was made under this name, so that a run "digits-128" is not taken for the
    128th of "digits".
    """
    path = _absolute(path)
    try:
        names = os.listdir(path.parent)
    except (FileNotFoundError, NotADirectoryError):
        return None
    family = sorted((number, name) for name in names if (number := _number(path, name)))
    for number, name in reversed(family):
        if (path.parent / name / RUN_FILE).is_file() and (
            number == 1 or _made_as(path.parent / name, path.name)
        ):
            return path.parent / name
    return None


def temporary_sibling(path: Path) -> Path:
    """A new hidden folder beside `path`, on the same file system, to build in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    temporary.mkdir()
    return temporary


def publish(temporary: Path, path: Path) -> Path:
    """Rename the finished folder to the first free name of the family, and return it.

    The rename is what decides between processes that want one name: it fails where a folder with
    something in it is in the way, and then the next name is tried.
    """
    refused: set[Path] = set()
    while True:
        target = _first_free(path, refused)
        if rename_folder(temporary, target):
            return target
        refused.add(target)


def rename_folder(source: Path, target: Path) -> bool:
    """Rename a folder durably; False if the name is taken."""
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno in _TAKEN and os.path.lexists(target):
            return False
        raise
    sync_folder(target.parent)
    return True


def inside(folder: Path, name: str) -> Path:
    """`folder / name` for a name read from a file or given by a user.

    Raises:
        RunError: the name is not a plain file name, so it could lead out of the folder.
    """
    if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name or Path(name).name != name:
        raise RunError(folder, f"{name!r} is not a plain name; it must not hold path separators")
    return folder / name


def _first_free(path: Path, refused: set[Path]) -> Path:
    newest = newest_of(path)
    number = 1 if newest is None else _number(path, newest.name) + 1
    while _sibling(path, number) in refused or not _is_free(_sibling(path, number)):
        number += 1
    return _sibling(path, number)


def _absolute(path: Path | str) -> Path:
    # Not resolve(): a link that somebody made on purpose stays a link.
    absolute = Path(os.path.abspath(path))
    if not absolute.name:
        raise RunError(absolute, "cannot be a run folder")
    return absolute


def _sibling(path: Path, number: int) -> Path:
    return path if number == 1 else path.with_name(f"{path.name}-{number}")


def _number(path: Path, name: str) -> int:
    if name == path.name:
        return 1
    match = re.fullmatch(re.escape(path.name) + r"-([1-9][0-9]{0,8})", name)
    number = int(match[1]) if match else 0
    return number if number > 1 else 0


def _made_as(folder: Path, family: str) -> bool:
    try:
        return read_json(folder / RUN_FILE).get("family") == family
    except RunError:
        return False


def _is_free(path: Path) -> bool:
    if not os.path.lexists(path):
        return True
    if path.is_symlink() or not path.is_dir():
        return False
    with os.scandir(path) as entries:
        return next(entries, None) is None


def _remove_leftovers(path: Path) -> None:
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with contextlib.suppress(OSError):
            old = time.time() - leftover.stat().st_mtime > _STALE_SECONDS
            if old and leftover.is_dir() and is_locked(leftover) is False:
                shutil.rmtree(leftover)
