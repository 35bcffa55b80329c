"""`treadle runs`: which runs there are and how they stand."""

from __future__ import annotations

import argparse
from typing import Any

from treadle.cli.arguments import DONE

NAME = "runs"
HELP = "list runs and how they stand"
DESCRIPTION = "List the runs in a folder and below it, newest first."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FOLDER and the options."""
    parser.add_argument(
        "folder", metavar="FOLDER", nargs="?", default="runs", help="where to look; default runs"
    )
    parser.add_argument("--json", action="store_true", help="print one line of JSON for each run")


def run(arguments: argparse.Namespace) -> int:
    """Print the table; returns the exit code."""
    import json
    import time
    from pathlib import Path

    from treadle.cli import printing
    from treadle.cli.arguments import UsageError
    from treadle.runs import list_runs

    if not Path(arguments.folder).is_dir():
        raise UsageError(f"{arguments.folder}: there is no such folder")
    found = list_runs(arguments.folder)
    for _, reason in found.skipped:
        printing.say(f"skipped {reason}")
    if arguments.json:
        for one in found:
            print(json.dumps({**one.fields, "status": one.status, "path": str(one.path)}))
        return DONE
    if not found:
        printing.say(f"no runs in {arguments.folder}")
        return DONE
    rows = [
        (
            one.id,
            printing.shown_path(one.path or ""),
            one.status,
            str(one.epoch),
            str(one.step),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(one.created)),
            optimizers_of(one.setup),
            (one.weights_sha256 or "-")[:12],
        )
        for one in found
    ]
    head = ("id", "run", "status", "epoch", "step", "created", "optimizer", "weights")
    print(printing.table(head, rows))
    return DONE


def optimizers_of(setup: dict[str, Any]) -> str:
    """What a run was optimized with, in a word or two; "-" where it does not say."""
    found = setup.get("optimizers")
    said = []
    for one in found.values() if isinstance(found, dict) else ():
        try:
            said.append(f"{one['class'].rpartition('.')[2]} {one['groups'][0]['lr']:g}")
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):  # somebody has been at run.json
            said.append("?")
    return ", ".join(said) or "-"
