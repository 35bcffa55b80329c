"""The runs under a folder, and one of them by its id, name or place."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from treadle.runs.errors import RunError
from treadle.runs.folders import RUN_FILE
from treadle.runs.record import Run

_DEEPEST = 4


class Runs(list[Run]):
    """Runs, newest first. `skipped` holds the folders of runs that cannot be read, with reasons."""

    def __init__(self, runs: Iterable[Run], skipped: Iterable[tuple[Path, str]]) -> None:
        super().__init__(runs)
        self.skipped: list[tuple[Path, str]] = list(skipped)


def list_runs(folder: Path | str) -> Runs:
    """The runs in a folder and in its subfolders (four levels), newest first; none if it does not exist.

    Hidden folders, links, and what lies inside a run are not looked into. Only run.json is read, so this
    is quick for thousands of runs. A damaged run is skipped, not an error: see `Runs.skipped`.
    """
    found, skipped = [], []
    for path in _candidates(Path(os.path.abspath(folder)), 0):
        try:
            run = Run.open(path)
            found.append((run.created, str(path), run))
        except RunError as error:
            skipped.append((path, str(error)))
    return Runs([run for *_, run in sorted(found, key=lambda item: item[:2], reverse=True)], skipped)


def find(folder: Path | str, which: str | Path) -> Run:
    """The run that `which` means: its path, its id (or the beginning of it), its folder's name or its name.

    Of several runs of one name it is the newest.

    Raises:
        RunError: there is none, or the beginning of an id fits several; the message lists what there is.
    """
    if (Path(which) / RUN_FILE).is_file():
        return Run.open(which)
    text = os.fspath(which)
    runs = list_runs(folder)
    for matches in (
        [run for run in runs if run.id == text],
        [run for run in runs if run.path is not None and run.path.name == text][:1],
        [run for run in runs if run.name == text][:1],
        [run for run in runs if len(text) >= 3 and run.id.startswith(text)],
    ):
        if len(matches) > 1:
            raise RunError(folder, f"{text!r} fits several runs: {_names(matches)}")
        if matches:
            return matches[0]
    damaged = "".join(f"\n  skipped: {reason}" for _, reason in runs.skipped)
    raise RunError(folder, f"there is no run {text!r}; there are {_names(runs) or 'none'}{damaged}")


def _candidates(folder: Path, depth: int) -> Iterator[Path]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    if any(entry.name == RUN_FILE for entry in entries):
        yield folder
        return
    for entry in entries:
        if depth < _DEEPEST and not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
            yield from _candidates(Path(entry.path), depth + 1)


def _names(runs: list[Run]) -> str:
    shown = ", ".join(f"{run.id} ({run.path.name if run.path else run.name})" for run in runs[:10])
    return shown + (f" and {len(runs) - 10} more" if len(runs) > 10 else "")
