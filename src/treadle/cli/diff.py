"""`treadle diff A B`: are two runs the same, and if not, where do they part?"""

from __future__ import annotations

import argparse
from typing import Any

from treadle.cli.arguments import DONE, FAILED, add_traceback

NAME = "diff"
HELP = "say whether two runs are the same, and where they first part"
DESCRIPTION = """\
Compare two runs: configuration, setup (what they are made of), environment, and every recorded value to the
bit. Says at which step they first part and what differed first there: the samples, the loss, the gradient or
the weights. The callback treadle.callbacks.Fingerprints records what is needed to tell these apart; without
it the logged values are compared. Leaves with 0 where the runs are the same and with 1 where they are not.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The two runs."""
    parser.add_argument("one", metavar="A", help="a run's folder, id or name")
    parser.add_argument("other", metavar="B", help="another")
    add_traceback(parser)


def run(arguments: argparse.Namespace) -> int:
    """Compare and print; returns the exit code."""
    from treadle.cli import printing
    from treadle.cli.rebuild import find_run
    from treadle.runs import compare

    one, other = find_run(arguments.one), find_run(arguments.other)
    found = compare(one, other)
    rows: list[tuple[Any, ...]] = [("configuration", name, *pair) for name, pair in found.config.items()]
    rows += [("setup", name, *pair) for name, pair in found.setup.items()]
    rows += [("environment", name, *pair) for name, pair in found.environment.items()]
    rows += [("last step", "", *found.lengths)] if found.lengths[0] != found.lengths[1] else []
    rows += (
        [("final weights", "sha256", *(str(sha)[:16] for sha in found.weights))]
        if len(set(found.weights)) > 1
        else []
    )
    if rows:
        print(printing.table(("what", "which", "A", "B"), [tuple(str(cell) for cell in row) for row in rows]))
    if found.parting is not None:
        a, b = (_exact(value) for value in found.parting.values)
        print(f"they part at step {found.parting.step}: {found.parting.name} is {a} in A and {b} in B")
    elif found.compared:
        print(f"all {len(found.compared)} shared series are equal to the bit up to step {min(found.lengths)}")
    print("the same" if found.same else "not the same")
    return DONE if found.same else FAILED


def _exact(value: float | None) -> str:
    return "missing" if value is None else repr(value)
