"""The names that checkpoints have in their folder, while they are written and when they are there."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

MAX_STEP = 10**18
_FINAL = re.compile(r"step-(\d{8,19})")
_HIDDEN = re.compile(r"\.step-(\d{8,19})\.(new|old|trash)-[0-9a-f]{16}")


def name_of(step: int) -> str:
    """The name of the checkpoint of a step: `step-00000500`.

    Raises:
        ValueError: the step is no whole number from 0 on.
    """
    if type(step) is not int or not 0 <= step < MAX_STEP:
        raise ValueError(f"step is {step!r}; a checkpoint needs a whole number from 0 on")
    return f"step-{step:08d}"


def hidden(folder: Path, step: int, kind: str) -> Path:
    """A new hidden name for a checkpoint of this step; see `commit`."""
    return folder / f".{name_of(step)}.{kind}-{secrets.token_hex(8)}"


def scan(folder: Path) -> Iterator[tuple[int, str, Path]]:
    """Step, kind and path of everything in the folder that has one of our names."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    for name in sorted(names):
        if match := _FINAL.fullmatch(name):
            if name == f"step-{int(match[1]):08d}":
                yield int(match[1]), "final", folder / name
        elif match := _HIDDEN.fullmatch(name):
            yield int(match[1]), match[2], folder / name
