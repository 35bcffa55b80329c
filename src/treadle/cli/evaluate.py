"""`treadle evaluate RUN`: loss and metrics of a trained model."""

from __future__ import annotations

import argparse

from treadle.cli.arguments import DONE, UsageError, add_allow, add_run, add_traceback

NAME = "evaluate"
HELP = "print loss and metrics of a run's model"
DESCRIPTION = """\
Print loss and metrics of a run's model over its validation or test data: every sample once, weighted by
items. The run itself is not changed.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """RUN and the options."""
    add_run(parser)
    parser.add_argument(
        "--data",
        choices=("train", "val", "test"),
        help="which data; default test where there are some, else val",
    )
    add_checkpoint(parser)
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of a table")
    add_allow(parser)
    add_traceback(parser)


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """The option --checkpoint."""
    parser.add_argument(
        "--checkpoint",
        default="last",
        metavar="last|best|FOLDER",
        help="which weights; default last. best goes by what the run's checkpoints monitor",
    )


def run(arguments: argparse.Namespace) -> int:
    """Evaluate and print; returns the exit code."""
    import json

    from treadle.cli import printing
    from treadle.cli.rebuild import experiment_of, find_run, load

    found = find_run(arguments.which)
    experiment = experiment_of(found, arguments.allow)
    names = [name for name in ("test", "val") if name in experiment.data_names]
    if arguments.data is None and not names:
        raise UsageError("the run has neither test nor validation data; give --data train")
    name = arguments.data or names[0]
    trainer = experiment.build_trainer(progress=False, run_dir=None, strategy="auto")
    task, data = experiment.build_task(), experiment.build_data(name)
    checkpoint = load(task, found, arguments.checkpoint)
    results = trainer.evaluate(task, data, name)
    if arguments.json:
        values = {key: printing.plain_number(value) for key, value in results.items()}
        print(json.dumps({"checkpoint": str(checkpoint), "results": values}))
        return DONE
    printing.say(f"{name} data, weights of {printing.shown_path(checkpoint)}")
    print(
        printing.table(("metric", "value"), [(key, printing.number(value)) for key, value in results.items()])
    )
    return DONE
