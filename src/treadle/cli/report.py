"""`treadle report RUN [RUN ...] -o report.html`: look at runs in a browser."""

from __future__ import annotations

import argparse

from treadle.cli.arguments import DONE, add_traceback

NAME = "report"
HELP = "write a run, or several side by side, as one HTML file"
DESCRIPTION = """\
Write one HTML file with everything a run recorded: curves to zoom into, results, events, where the time
went, configuration and environment. Several runs are drawn over each other, with a table of what differs.
The file needs no network and no other file. A run that goes on can be reported too.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The runs and the file."""
    parser.add_argument(
        "which", metavar="RUN", nargs="+", help="a run's folder, or its id or name under runs/; or several"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", default="report.html", help="the file to write; default report.html"
    )
    add_traceback(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the file and print its name; returns the exit code."""
    from treadle.cli.rebuild import find_run
    from treadle.report import write_report

    print(write_report([find_run(which) for which in arguments.which], arguments.output))
    return DONE
