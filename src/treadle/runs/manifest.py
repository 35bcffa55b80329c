"""run.json: who a run is and how it stands."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from treadle.runs import files
from treadle.runs.errors import RunError
from treadle.runs.folders import RUN_FILE

FORMAT = 1
STATUSES = ("running", "finished", "stopped", "failed", "interrupted")

_FIXED = ("id", "created", "format", "family")
_TYPES: dict[str, tuple[type, ...]] = {
    "id": (str,),
    "name": (str,),
    "status": (str,),
    "reason": (str, type(None)),
    "step": (int,),
    "epoch": (int,),
    "weights_sha256": (str, type(None)),
    "created": (int, float),
    "ended": (int, float, type(None)),
}


class Manifest:
    """The fields of a run, kept in memory.

    Raises:
        RunError: an update names an unknown status or a field that never changes, or gives a wrong type.
    """

    place: Path | str = "run"

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields
        self._lock = threading.RLock()

    def read(self) -> dict[str, Any]:
        """All fields, as a copy."""
        return dict(self._fields)

    def read_text(self, name: str) -> str | None:
        """A field that is a string or None."""
        value = self.read().get(name)
        return None if value is None else str(value)

    def update(self, changes: Mapping[str, Any]) -> None:
        """Change fields, all at once."""
        with self._lock:
            fields = {**self.read(), **self._checked(changes)}
            check(fields, self.place)
            self._store(fields)

    def _store(self, fields: dict[str, Any]) -> None:
        self._fields = fields

    def _checked(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        for name in _FIXED:
            if name in changes:
                raise RunError(self.place, f"{name!r} never changes")
        values = {name: files.plain(value, name) for name, value in changes.items()}
        if "status" in values and "ended" not in values:
            values["ended"] = None if values["status"] == "running" else time.time()
        return values


class FileManifest(Manifest):
    """The fields of a run in its folder. The file is read again when somebody has replaced it.

    Raises:
        RunError: the file is missing, damaged, or of a newer format.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__({})
        self._path = folder / RUN_FILE
        self.place = self._path
        self._seen: tuple[int, int, int] | None = None
        self.read()

    def read(self) -> dict[str, Any]:
        """All fields, as a copy."""
        with self._lock:
            signature = self._signature()
            if signature is None or signature != self._seen:
                fields = files.read_json(self._path)
                check(fields, self._path)
                self._fields, self._seen = fields, signature
            return dict(self._fields)

    def _store(self, fields: dict[str, Any]) -> None:
        files.write_json(self._path, fields)

    def _signature(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None  # reading it says what is wrong
        return found.st_ino, found.st_mtime_ns, found.st_size


def check(fields: Mapping[str, Any], place: Path | str) -> None:
    """Raise a RunError unless these are the fields of a run that this version understands."""
    version = fields.get("format")
    if not isinstance(version, int):
        raise RunError(place, "is not a run of Treadle: it has no format number")
    if version > FORMAT:
        raise RunError(
            place, f"has format {version}, newer than {FORMAT}, which this version of Treadle reads"
        )
    for name, types in _TYPES.items():
        if name not in fields:
            if name == "ended":
                continue
            raise RunError(place, f"is damaged: {name!r} is missing")
        if not isinstance(fields[name], types) or isinstance(fields[name], bool):
            allowed = " or ".join("None" if t is type(None) else t.__name__ for t in types)
            raise RunError(place, f"{name!r} is {fields[name]!r}; it must be {allowed}")
    if fields["status"] not in STATUSES:
        raise RunError(place, f"status is {fields['status']!r}; allowed are {', '.join(STATUSES)}")
