"""What was handed on already, for sinks from which nothing can be taken back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from treadle.log import Point
from treadle.loggers.text_files import replace
from treadle.runs.media import Medium


class Ledger:
    """The last step of each name that was handed on; a run that goes on hands on only what is later.

    What a run repeats after a cut is the same to the bit, so that what a sink has may stay.

    Args:
        path: where it is kept between two processes; None keeps it in memory.
    """

    def __init__(self, path: Path | None, last: dict[str, int] | None = None) -> None:
        self._path = path
        self._last: dict[str, int] = dict(last or {})
        if path is not None and path.is_file():
            self._last |= {str(name): int(step) for name, step in json.loads(path.read_text()).items()}

    def fresh(self, points: Iterable[Point]) -> list[Point]:
        """Those points that were not handed on yet."""
        return [point for point in points if point[1] > self._last.get(point[0], -1)]

    def is_fresh(self, kind: str, name: str, step: int) -> bool:
        """Whether this text, picture or histogram was not handed on yet."""
        return step > self._last.get(f"{kind}:{name}", -1)

    def note(self, points: Iterable[Point]) -> None:
        """These points are handed on."""
        for name, step, _ in points:
            self._last[name] = max(step, self._last.get(name, -1))
        self._save()

    def note_medium(self, medium: Medium) -> None:
        """This is handed on."""
        self._last[f"{medium.kind}:{medium.name}"] = medium.step
        self._save()

    def _save(self) -> None:
        if self._path is not None:
            replace(self._path, json.dumps(self._last))
