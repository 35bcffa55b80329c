"""`treadle watch [RUN ...]`: look at runs while they go on, in a browser or in the terminal."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from treadle.cli.arguments import DONE, UsageError, add_traceback

if TYPE_CHECKING:
    from treadle.runs import Run

NAME = "watch"
HELP = "look at runs while they go on, in a browser or in the terminal"
DESCRIPTION = """\
Serve the report of runs, which changes with them: open the printed address in a browser on this machine. The
server listens on 127.0.0.1 alone, knows nobody without the token in the address, and changes nothing. Ctrl-C
ends it; the runs go on.

With --terminal the curves of a run are drawn as text, and again whenever something new is recorded, until the
run ends or Ctrl-C is pressed. Where the output is no terminal they are drawn once.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The runs, and how they are shown."""
    parser.add_argument(
        "which",
        metavar="RUN",
        nargs="*",
        help="a run's folder, or its id or name under runs/; or several; the newest in runs/ if left out",
    )
    parser.add_argument("--terminal", action="store_true", help="draw one run in the terminal, as text")
    parser.add_argument(
        "--every", metavar="SECONDS", type=float, default=1.0, help="how often to look for news; default 1"
    )
    parser.add_argument(
        "--port", type=int, default=0, help="where to serve on 127.0.0.1; any free port if left out"
    )
    parser.add_argument("--once", action="store_true", help="with --terminal: draw once and leave")
    parser.add_argument(
        "--metric", metavar="NAME", action="append", help="with --terminal: draw this curve; repeatable"
    )
    add_traceback(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show until the reader has enough; returns the exit code."""
    from treadle.cli.rebuild import find_run

    if not (arguments.every > 0 and math.isfinite(arguments.every)):
        raise UsageError(f"--every {arguments.every:g}: give a positive number of seconds")
    if not 0 <= arguments.port < 65536:
        raise UsageError(f"--port {arguments.port}: give a number from 0 (any free one) to 65535")
    found = [find_run(which) for which in arguments.which] or [_newest()]
    try:
        if not arguments.terminal:
            return _serve(found, arguments)
        if len(found) > 1:
            raise UsageError("--terminal draws one run; without it several are shown in a browser")
        return _draw(found[0], arguments)
    except KeyboardInterrupt:
        return DONE


def _newest() -> Run:
    from pathlib import Path

    from treadle.runs import list_runs

    found = list_runs("runs") if Path("runs").is_dir() else []
    if not found:
        raise UsageError("there is no run in runs/; name one")
    return found[0]


def _serve(runs: list[Run], arguments: argparse.Namespace) -> int:
    from treadle.report.live import LiveServer

    try:
        server = LiveServer(runs, arguments.port, arguments.every)
    except OSError as error:
        raise UsageError(f"--port {arguments.port}: {error.strerror}") from error
    with server:
        print(server.url, flush=True)
        server.serve_forever(poll_interval=0.2)
    return DONE


def _draw(run: Run, arguments: argparse.Namespace) -> int:
    import shutil
    import sys
    import time

    from treadle.report import draw

    again = sys.stdout.isatty() and not arguments.once
    shown = ""
    while True:
        size = shutil.get_terminal_size((80, 24))
        status = run.status
        # Two charts on a screen, as a rule; never wider than what reads well.
        width, height = max(40, min(size.columns, 120)), max(5, min(12, size.lines // 2 - 4))
        try:
            text = draw(run, width, height, arguments.metric)
        except KeyError as error:
            raise UsageError(str(error.args[0])) from None
        if text != shown:
            clear = "\x1b[H\x1b[2J" if again else ""
            print(f"{clear}{text}", end="", flush=True)
            shown = text
        if not again or status != "running":
            return DONE
        time.sleep(arguments.every)
