"""`treadle goodput`: how often to save, and how much time failures cost."""

from __future__ import annotations

import argparse

from treadle.cli.arguments import DONE, UsageError

NAME = "goodput"
HELP = "suggest how often a long run should save, from how often it fails"
DESCRIPTION = """\
Suggest how often a long run should save, and say how much of its time is training that is kept (its
goodput). Failures are simulated as a Poisson process, and compared with the model of Daly (2006); Young's
interval (1974) is shown beside it. What a save costs is the time that training waits for it.

  treadle goodput --machines 1000 --mtbf 50000 --save 30 --restart 300 --step 2
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--machines", type=int, default=1, metavar="N", help="how many (default 1)")
    parser.add_argument(
        "--mtbf", type=float, required=True, metavar="HOURS", help="mean time between failures of one machine"
    )
    parser.add_argument("--save", type=float, required=True, metavar="SECONDS", help="what a save costs")
    parser.add_argument(
        "--restart", type=float, default=0.0, metavar="SECONDS", help="from a failure to the next step (0)"
    )
    parser.add_argument("--step", type=float, metavar="SECONDS", help="of a step, to count in them")


def run(arguments: argparse.Namespace) -> int:
    """Print the table; returns the exit code."""
    from treadle.cli.printing import table
    from treadle.goodput import Cluster

    if arguments.machines < 1:
        raise UsageError(f"--machines {arguments.machines}: give a whole number from 1 on")
    if arguments.step is not None and not arguments.step > 0:
        raise UsageError(f"--step {arguments.step}: give a positive number of seconds")
    try:
        cluster = Cluster(arguments.mtbf * 3600 / arguments.machines, arguments.save, arguments.restart)
    except ValueError as error:
        raise UsageError(str(error).removeprefix("Cluster: ")) from None
    best = cluster.daly()
    rows = []
    for name, interval in (
        ("a quarter", best / 4),
        ("Daly 2006", best),
        ("Young 1974", cluster.young()),
        ("four times", best * 4),
    ):
        goodput, simulated = cluster.expected(interval), cluster.simulated(interval)
        rows.append([name, f"{interval:.0f}", f"{100 * goodput:.1f}", f"{100 * simulated:.1f}"])
    print(f"a failure every {cluster.between_failures / 3600:.2f} hours")
    print(table(["interval", "seconds", "goodput %", "simulated %"], rows))
    every = f"steps={max(1, round(best / arguments.step))}" if arguments.step else f"seconds={best:.0f}"
    print(f"checkpoint=treadle.Checkpoints(every=treadle.Every({every}))")
    return DONE
