"""`treadle resume RUN`: go on with a run as if it had never stopped."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable

from treadle.cli.arguments import UsageError, add_allow, add_run, add_set, add_traceback
from treadle.cli.devices import add_devices, check_devices, launch

NAME = "resume"
HELP = "go on with a run that was stopped or killed"
DESCRIPTION = """\
Go on with a run that was stopped or killed, from its newest valid checkpoint (from the beginning if it has
none yet). It is rebuilt from its record and ends bit for bit as if it had never stopped.

--set changes only how long a run is and how it is carried out:
  trainer.max_epochs, trainer.max_steps, trainer.device, trainer.strategy, trainer.microbatch_size,
  trainer.compile, trainer.progress, trainer.log_every, trainer.checkpoint,
  data.NAME.init_args.workers and .prefetch
"""

CHANGEABLE = (
    r"trainer\.(max_epochs|max_steps|device|strategy|microbatch_size|compile|progress|log_every|checkpoint)(\..+)?",
    r"data\.(train|val|test)\.init_args\.(workers|prefetch)",
)
FIELD = "overrides"
"""Where run.json keeps what was changed, for the next resume."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """RUN and the options."""
    add_run(parser)
    add_set(parser, "change how long the run is or how it is carried out (see above); repeatable")
    add_allow(parser)
    add_devices(parser)
    add_traceback(parser)


def run(arguments: argparse.Namespace) -> int:
    """Train on; returns the exit code."""
    check_changes(arguments.set)

    from treadle.cli.rebuild import experiment_of, find_run
    from treadle.cli.training import train
    from treadle.runs import Run

    found = find_run(arguments.which)
    experiment = experiment_of(found, arguments.allow, arguments.set)
    assert found.path is not None
    if arguments.devices is not None:
        check_devices(arguments.devices, (experiment.config.get("trainer") or {}).get("strategy"))
        settings = [word for change in arguments.set for word in ("--set", change)]
        allowed = [word for name in arguments.allow for word in ("--allow", name)]
        traceback = ["--traceback"] if arguments.traceback else []
        return launch(arguments.devices, ["resume", str(found.path), *settings, *allowed, *traceback])
    trainer = experiment.build_trainer()
    if arguments.set and trainer.strategy.is_main:
        kept = [*found.fields.get(FIELD, []), *arguments.set]
        with Run.reopen(found.path) as record:
            record.update(**{FIELD: kept})
    return train(experiment, trainer, arguments, resume=found.path)


def check_changes(changes: Iterable[str]) -> None:
    """Raise a UsageError for a change that would make another run of it."""
    for change in changes:
        key = change.partition("=")[0].strip()
        if not any(re.fullmatch(pattern, key) for pattern in CHANGEABLE):
            raise UsageError(
                f"--set {change}: {key} is part of what the run computes, and would make it another run; "
                "`treadle resume --help` lists what can be changed"
            )
