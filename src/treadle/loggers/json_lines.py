"""Everything as lines of JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from treadle.log import Point
from treadle.loggers.base import Begin, Logger
from treadle.loggers.text_files import append, place_of, replace, whole_lines


class JSONLinesLogger(Logger):
    """Write one JSON object a line, each with its "kind" and its "step".

    - {"kind": "run", "id", "name", "hyperparameters"} when the run begins, and when it goes on
    - {"kind": "values", "values": {name: number}}; NaN and infinities are the strings "NaN", "Infinity" and
      "-Infinity", which `float` takes: JSON has no numbers for them
    - {"kind": "text", "name", "text"}
    - {"kind": "histogram", "name", "edges", "counts"}
    - {"kind": "picture", "name", "file"}: a PNG file in the folder of pictures beside it
    - {"kind": "end", "status"}

    The file is `metrics.jsonl` in the run's folder, or NAME-ID.jsonl in `folder`.

    Args:
        folder: where to, instead of the run's folder.
        options: see `Logger`.
    """

    def __init__(self, folder: Path | str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.folder = None if folder is None else Path(folder)
        self._path = Path()
        self._step = 0

    def check(self, begin: Begin) -> None:
        """The run must be somewhere."""
        self._path = place_of(begin, self.folder, "metrics.jsonl")

    def open(self, begin: Begin) -> None:
        """Keep the lines before `begin.step`; its own are written anew from the record."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lines = whole_lines(self._path).split("\n")[:-1]
        kept = [line for line in lines if _is_before(line, begin.step)]
        replace(self._path, "".join(f"{line}\n" for line in kept))
        self._line("run", begin.step, id=begin.id, name=begin.name, hyperparameters=begin.hyperparameters)
        self.write_points(begin.points)
        for medium in begin.media:
            self.write_medium(medium)

    def write_points(self, points: Sequence[Point]) -> None:
        """A line for each step."""
        rows: dict[int, dict[str, float]] = {}
        for name, step, value in points:
            rows.setdefault(step, {})[name] = value
        append(self._path, "".join(_json("values", step, values=row) for step, row in rows.items()))

    def write_text(self, name: str, step: int, text: str) -> None:
        """A line with the text."""
        self._line("text", step, name=name, text=text)

    def write_picture(self, name: str, step: int, png: bytes) -> None:
        """A file, and a line that names it."""
        folder = self._path.with_suffix(".pictures")
        folder.mkdir(exist_ok=True)
        safe = "".join(sign if sign.isalnum() or sign in "-_." else "_" for sign in name)[:100]
        file = folder / f"{safe}-{step:08d}.png"
        file.write_bytes(png)
        self._line("picture", step, name=name, file=f"{folder.name}/{file.name}")

    def write_histogram(self, name: str, step: int, edges: list[float], counts: list[int]) -> None:
        """A line with the numbers."""
        self._line("histogram", step, name=name, edges=edges, counts=counts)

    def close(self, status: str) -> None:
        """The last line."""
        self._line("end", self._step, status=status)

    def _line(self, kind: str, step: int, **fields: Any) -> None:
        self._step = step
        append(self._path, _json(kind, step, **fields))


def _json(kind: str, step: int, **fields: Any) -> str:
    line = {"kind": kind, "step": step, **fields}
    return json.dumps(_plain(line), ensure_ascii=False, allow_nan=False) + "\n"


def _is_before(line: str, step: int) -> bool:
    found = json.loads(line)
    return found["kind"] != "end" and int(found["step"]) < step


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
