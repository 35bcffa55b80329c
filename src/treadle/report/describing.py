"""What was run, and in what several runs differ: rows of plain text."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from treadle.runs import Run, compare

LONGEST = 300
"""Characters of a value that are shown in a table."""

LONGEST_DOCUMENT = 60_000
"""Characters of a configuration that are shown."""

_COMPARED = 3_000_000  # points of two runs that are compared one by one; with more it would take too long
_LEFT_OUT = ("command",)


def text_of(value: Any) -> str:
    """A value in a table."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return clipped(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int):
        return clipped(str(value))
    return clipped(json.dumps(value, ensure_ascii=False, default=str))


def clipped(text: str, most: int = LONGEST) -> str:
    """At most so many characters, and how many there are."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"


def configuration(run: Run) -> str:
    """The configuration as `treadle fit` takes it; empty where a run was started from Python without one."""
    return document(run.config)


def document(tree: Mapping[str, Any]) -> str:
    """A tree as YAML; empty where there is nothing in it."""
    if not tree:
        return ""
    try:
        text: str = yaml.safe_dump(dict(tree), sort_keys=False, allow_unicode=True, width=100)
    except yaml.YAMLError:
        text = json.dumps(tree, indent=2, ensure_ascii=False, default=str)
    return clipped(text, LONGEST_DOCUMENT)


def environment(run: Run) -> list[tuple[str, str]]:
    """What it ran on, by dotted name; the command first."""
    found = dict(run.environment)
    command = found.pop("command", None)
    git = found.pop("git", None)
    rows = [("command", " ".join(map(str, command)))] if isinstance(command, list) else []
    if isinstance(git, Mapping):
        state = {True: "with changes that are not committed", False: "clean", None: "state unknown"}
        rows.append(
            ("git", f"{git.get('commit') or 'no commit'} ({state.get(git.get('dirty'), 'state unknown')})")
        )
    return [(name, text_of(value)) for name, value in [*rows, *flat(found).items()]]


def identity(run: Run) -> list[tuple[str, str]]:
    """Who the run is and how it stands."""
    overrides = run.fields.get("overrides") or []
    rows = [
        ("id", run.id),
        ("folder", "in memory" if run.path is None else str(run.path)),
        ("seed", text_of(run.fields.get("seed"))),
        ("began", moment(run.created)),
        ("ended", "-" if run.ended is None else moment(run.ended)),
        ("weights (SHA-256)", run.weights_sha256 or "-"),
        ("changed on resume", ", ".join(map(str, overrides)) if isinstance(overrides, list) else "-"),
    ]
    return [(name, text) for name, text in rows if text and text != "-"]


def differences(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """What differs between runs: its dotted name, and the value of each run, "-" where it has none."""
    rows: list[tuple[str, list[str]]] = []
    for prefix, tables in (
        ("", [flat(run.config) for run in runs]),
        ("setup.", [flat(run.setup) for run in runs]),
        ("environment.", [flat(_without(run.environment)) for run in runs]),
    ):
        for name in dict.fromkeys(name for table in tables for name in table):
            values = [text_of(table.get(name)) for table in tables]
            if len(set(values)) > 1:
                rows.append((f"{prefix}{name}", values))
    return rows


def partings(runs: Sequence[Run]) -> list[str]:
    """For each run after the first, where it parts from the first, in a sentence."""
    return [_parting(runs[0], other) for other in runs[1:]]


def _parting(one: Run, other: Run) -> str:
    names = f"{clipped(one.name, 60)} ({one.id}) and {clipped(other.name, 60)} ({other.id})"
    points = sum(int(run.downsample(name, 1).count.sum()) for run in (one, other) for name in run.names())
    if points > _COMPARED:
        return f"{names}: too many values to compare one by one here; `treadle diff` does."
    found = compare(one, other)
    if found.parting is not None:
        values = " and ".join("nothing" if value is None else repr(value) for value in found.parting.values)
        return f"{names} part at step {found.parting.step}: {found.parting.name} is {values}."
    if not found.compared:
        return f"{names} recorded nothing in common."
    upto = f"{names}: all values that both recorded are equal to the bit up to step {min(found.lengths)}"
    return f"{upto}, and so are the final weights." if found.same else f"{upto}."


def flat(tree: Any, path: str = "") -> dict[str, Any]:
    """The leaves of a tree of dictionaries and lists by dotted name."""
    if isinstance(tree, Mapping) and tree:
        return {
            k: v
            for key, value in tree.items()
            for k, v in flat(value, f"{path}.{key}" if path else str(key)).items()
        }
    if isinstance(tree, list) and tree and len(tree) <= 100:
        return {
            k: v for number, value in enumerate(tree) for k, v in flat(value, f"{path}[{number}]").items()
        }
    return {path: tree} if path else {}


def moment(seconds: float) -> str:
    """A time as the computer's clock on the wall shows it."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return text_of(seconds)


def _without(environment: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in environment.items() if name not in _LEFT_OUT}
