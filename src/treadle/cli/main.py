"""The entry point: which command, and with which code it leaves."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Sequence

from treadle.cli import diff, evaluate, export, fit, goodput, predict, replay, report, resume, runs, watch
from treadle.cli.arguments import DONE, FAILED, KILLED, USAGE, Parser, add_command
from treadle.cli.printing import show_warning

EPILOG = """\
exit codes:
  0   done
  1   failed: the run, or what it runs, raised an error
  2   wrong usage or configuration: nothing was trained or written
  75  interrupted, and saved: `treadle resume RUN` goes on
  130 interrupted before there was anything to save

`treadle COMMAND --help` says more.
"""


def make_parser() -> Parser:
    """The parser of all commands."""
    parser = Parser(
        prog="treadle", description="A PyTorch trainer that is exact, free and plain.", epilog=EPILOG
    )
    parser.add_argument("--version", action="store_true", help="print the version and leave")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for command in (fit, resume, evaluate, predict, export, runs, report, watch, replay, diff, goodput):
        add_command(commands, command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code and raises nothing."""
    parser = make_parser()
    try:
        arguments = parser.parse(sys.argv[1:] if argv is None else list(argv))
    except SystemExit as leave:  # argparse has printed why
        return leave.code if isinstance(leave.code, int) else USAGE
    if arguments.version:
        from treadle import __version__

        print(f"treadle {__version__}")
        return DONE
    if arguments.command is None:
        parser.print_help()
        return USAGE
    with warnings.catch_warnings():
        warnings.showwarning = show_warning
        try:
            code: int = arguments.run(arguments)
            sys.stdout.flush()
            return code
        except BrokenPipeError:
            # Whoever read our output has enough of it; Python would say so again when it flushes at the end.
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FAILED
        except KeyboardInterrupt:
            print("treadle: interrupted", file=sys.stderr)
            return KILLED
        except Exception as error:  # noqa: BLE001 - the one place where errors become exit codes
            from treadle.cli.failures import report

            return report(error, whole=getattr(arguments, "traceback", False))


if __name__ == "__main__":
    sys.exit(main())
