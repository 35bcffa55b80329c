"""What commands print: tables, warnings of one line, what to type next."""

from __future__ import annotations

import math
import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning as one line on standard error."""
    text = " ".join(str(message).split())
    print(f"treadle: warning: {text}", file=file or sys.stderr)


def say(text: str) -> None:
    """A line about what goes on, on standard error, so that output can be piped."""
    print(f"treadle: {text}", file=sys.stderr)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns side by side, two spaces apart; columns of numbers to the right."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    right = [all(_is_number(cell) for cell in column[1:]) for column in zip(*lines, strict=True)]
    aligned = (
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        )
        for line in lines
    )
    return "\n".join(line.rstrip() for line in aligned)


def number(value: float) -> str:
    """A result for people: six significant digits."""
    return f"{value:.6g}"


def plain_number(value: float) -> float | str:
    """A result for JSON, which has no words for infinity and NaN."""
    return value if math.isfinite(value) else str(value)


def shown_path(path: Path | str) -> str:
    """A path as short as it can be typed from here."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def command(*words: Any) -> str:
    """A command to type, with the place of `treadle` where the shell would not find it."""
    return shlex.join([_program(), *map(str, words)])


def _program() -> str:
    started = Path(sys.argv[0])
    if started.name != "treadle" or shutil.which("treadle") is not None:
        return "treadle"
    return shown_path(started.absolute())


def _is_number(cell: str) -> bool:
    return cell in ("", "-") or cell.replace(".", "", 1).replace("e-", "", 1).lstrip("-").isdigit()
