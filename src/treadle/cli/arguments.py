"""Parsing of command lines, and what the commands have in common. Imports nothing but argparse."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

DONE, FAILED, USAGE, INTERRUPTED, KILLED = 0, 1, 2, 75, 130
"""Exit codes; `treadle --help` explains them."""

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[Any]


class UsageError(Exception):
    """The command line asks for what cannot be; the text says what can."""


class Command(Protocol):
    """A module of this package that is a command."""

    NAME: str
    HELP: str
    DESCRIPTION: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add its arguments to its parser."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it; returns the exit code."""


class Parser(argparse.ArgumentParser):
    """argparse without guessing: no abbreviations, and a hint for what is nearly an option."""

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**settings, allow_abbrev=False)

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse, or print what is wrong and raise SystemExit(2)."""
        arguments, unknown = self.parse_known_args(argv)
        if unknown:
            parser = getattr(arguments, "parser", self)
            parser.error(f"unrecognized arguments: {' '.join(unknown)}.{parser.hint(unknown[0])}")
        return arguments

    def hint(self, given: str) -> str:
        """A known option close to the one given."""
        import difflib

        known = [option for action in self._actions for option in action.option_strings]
        close = difflib.get_close_matches(given.partition("=")[0], known, n=1)
        return f" Did you mean {close[0]}?" if close else ""

    def error(self, message: str) -> NoReturn:
        """Print the error and where to look, and leave with code 2."""
        self.exit(USAGE, f"{self.prog}: error: {message}\nSee `{self.prog} --help`.\n")


def add_command(commands: Commands, command: Any) -> None:
    """Add a command's parser."""
    parser = commands.add_parser(command.NAME, help=command.HELP, description=command.DESCRIPTION)
    command.add_arguments(parser)
    parser.set_defaults(run=command.run, parser=parser)


def add_set(parser: argparse.ArgumentParser, help: str) -> None:
    """The option --set."""
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=help)


def add_allow(parser: argparse.ArgumentParser) -> None:
    """The option --allow."""
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="MODULE",
        help="let the configuration name classes and functions of this module too, one of yours, say, in the "
        "current folder; repeatable. Without it: treadle, torch, torchmetrics, torcheval",
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    """The argument RUN."""
    parser.add_argument("which", metavar="RUN", help="a run's folder, or its id or name under runs/")


def add_traceback(parser: argparse.ArgumentParser) -> None:
    """The option --traceback."""
    parser.add_argument("--traceback", action="store_true", help="show whole tracebacks of errors")
