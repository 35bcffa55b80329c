"""Files that loggers append to: where they are, and what a kill or a full disk leaves of them."""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

from treadle.loggers.base import Begin


def place_of(begin: Begin, folder: Path | None, own: str) -> Path:
    """In the run's folder under a name of the logger's own; or in a given folder under the run's name.

    Raises:
        ValueError: the run is in memory, and no folder is given.
    """
    if folder is not None:
        return folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', begin.name)}-{begin.id}{Path(own).suffix}"
    if begin.folder is None:
        raise ValueError(f"the run is in memory, so {own} has no place: give the logger a folder")
    return begin.folder / own


def append(path: Path, text: str) -> None:
    """Add all of the text or, where the disk is full, nothing, so that it can be tried again."""
    with open(path, "ab", buffering=0) as file:
        end = file.tell()
        data = memoryview(text.encode("utf-8", "replace"))
        try:
            while data:
                data = data[file.write(data) :]
        except OSError:
            with suppress(OSError):
                file.truncate(end)
            raise


def replace(path: Path, text: str) -> None:
    """Make this the whole file, at once."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_bytes(text.encode("utf-8", "replace"))
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


def whole_lines(path: Path) -> str:
    """What is there, without a last line that a kill has torn; empty if there is no file."""
    text = path.read_bytes().decode("utf-8", "replace") if path.is_file() else ""
    return text[: text.rfind("\n") + 1]
