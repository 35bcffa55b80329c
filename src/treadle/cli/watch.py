"""`treadle watch --terminal RUN`: the curves of a run as text while it goes on."""

from __future__ import annotations

import argparse
import math

from treadle.cli.arguments import DONE, UsageError, add_run, add_traceback

NAME = "watch"
HELP = "draw the curves of a run in the terminal while it goes on"
DESCRIPTION = """\
Draw the curves of a run as text, and again whenever something new is recorded, until the run ends or Ctrl-C
is pressed. Where the output is no terminal they are drawn once.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, and how it is drawn."""
    add_run(parser)
    parser.add_argument(
        "--terminal", action="store_true", required=True, help="draw in the terminal, as text"
    )
    parser.add_argument("--every", metavar="SECONDS", type=float, default=2.0, help="how often; default 2")
    parser.add_argument("--once", action="store_true", help="draw once and leave")
    parser.add_argument("--metric", metavar="NAME", action="append", help="draw this curve; repeatable")
    add_traceback(parser)


def run(arguments: argparse.Namespace) -> int:
    """Draw until the run has ended; returns the exit code."""
    import shutil
    import sys
    import time

    from treadle.cli.rebuild import find_run
    from treadle.report import draw

    if not (arguments.every > 0 and math.isfinite(arguments.every)):
        raise UsageError(f"--every {arguments.every:g}: give a positive number of seconds")
    found = find_run(arguments.which)
    again = sys.stdout.isatty() and not arguments.once
    shown = ""
    while True:
        size = shutil.get_terminal_size((80, 24))
        # Two charts on a screen, as a rule; never wider than what reads well.
        status = found.status
        try:
            text = draw(
                found, max(40, min(size.columns, 120)), max(5, min(12, size.lines // 2 - 4)), arguments.metric
            )
        except KeyError as error:
            raise UsageError(str(error.args[0])) from None
        if text != shown:
            clear = "\x1b[H\x1b[2J" if again else ""
            print(f"{clear}{text}", end="", flush=True)
            shown = text
        if not again or status != "running":
            return DONE
        time.sleep(arguments.every)
