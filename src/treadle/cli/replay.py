"""`treadle replay RUN --step N`: run one step again."""

from __future__ import annotations

import argparse

from treadle.cli.arguments import DONE, FAILED, add_allow, add_run, add_traceback

NAME = "replay"
HELP = "run one step of a run again, and look into it"
DESCRIPTION = """\
Run one step of a run again, from the newest checkpoint before it: which samples it saw, what it logged, the
norm of every parameter's gradient, the fingerprint of the weights after it. The numbers are those of the
record, to the bit; where one is not, the command says so and leaves with 1. The run itself is not changed.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """RUN, the step, and what to do with it."""
    add_run(parser)
    parser.add_argument("--step", type=int, required=True, metavar="N", help="the optimizer step, from 1")
    parser.add_argument(
        "--break", action="store_true", dest="stop", help="start a debugger just before the step"
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="write what was found to a JSON file")
    add_allow(parser)
    add_traceback(parser)


def run(arguments: argparse.Namespace) -> int:
    """Replay and print; returns the exit code."""
    import dataclasses
    import json
    from pathlib import Path

    from treadle.cli import printing
    from treadle.cli.rebuild import experiment_of, find_run
    from treadle.replaying import replay

    found = find_run(arguments.which)
    experiment = experiment_of(found, arguments.allow)
    trainer = experiment.build_trainer(progress=False, run_dir=None)
    task, train = experiment.build_task(), experiment.build_data("train")
    val = experiment.build_data("val") if "val" in experiment.data_names else None
    result = replay(
        trainer, task, train, val, run=found, step=arguments.step, watch=_debug if arguments.stop else None
    )
    if arguments.output is not None:
        fields = dataclasses.asdict(result) | {
            "checkpoint": str(result.checkpoint),
            "differing": result.differing,
        }
        for name in ("gradient_norms", "values", "recorded"):
            fields[name] = {key: printing.plain_number(value) for key, value in fields[name].items()}
        Path(arguments.output).write_text(json.dumps(fields, indent=1, allow_nan=False) + "\n")
    start = "the beginning" if result.checkpoint is None else printing.shown_path(result.checkpoint)
    printing.say(f"step {result.step}, replayed from {start}")
    for number, indices in enumerate(result.batches):
        print(
            f"batch {number}: samples {'without numbers' if indices is None else ' '.join(map(str, indices))}"
        )
    rows = [(name, repr(value), repr(result.recorded.get(name))) for name, value in result.values.items()]
    print(printing.table(("value", "replayed", "recorded"), rows))
    norms = [(name, printing.number(norm)) for name, norm in result.gradient_norms.items()]
    print(printing.table(("gradient of", "norm"), norms))
    print(f"weights_sha256 {result.weights_sha256}")
    if result.differing:
        printing.say(f"not as recorded: {', '.join(result.differing)}")
        return FAILED
    return DONE


def _debug(state: object) -> None:
    """The step begins: `state.task`, `state.progress`; step into `task.train_step`."""
    breakpoint()
