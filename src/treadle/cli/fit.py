"""`treadle fit CONFIG`: train what a YAML file describes."""

from __future__ import annotations

import argparse

from treadle.cli.arguments import add_allow, add_set, add_traceback
from treadle.cli.devices import add_devices, check_devices, launch

NAME = "fit"
HELP = "train what a YAML file describes"
DESCRIPTION = """\
Train what a YAML file describes. Its top-level keys are seed, task, data and trainer:

  seed: 0
  task:                          # a treadle.Task
    class_path: treadle.SupervisedTask
    init_args:
      model: {class_path: torch.nn.Linear, init_args: {in_features: 64, out_features: 10}}
      loss: torch.nn.functional.cross_entropy
  data:                          # train, and val and test if you have them
    train:
      class_path: treadle.Loader
      init_args: {dataset: {class_path: treadle.data.Digits}, batch_size: 64, shuffle: true}
  trainer: {max_epochs: 5, run_dir: runs/digits}

Several modules one after the other: {class_path: torch.nn.Sequential, args: [..., ...]}.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """CONFIG and the options."""
    parser.add_argument("config", metavar="CONFIG", help="a YAML file")
    add_set(parser, "change a value, such as trainer.max_epochs=3; the value is read as YAML; repeatable")
    add_allow(parser)
    parser.add_argument("--run-dir", metavar="FOLDER", help="short for --set trainer.run_dir=FOLDER")
    add_devices(parser)
    add_traceback(parser)


def run(arguments: argparse.Namespace) -> int:
    """Train; returns the exit code."""
    import json

    from treadle.cli.printing import say
    from treadle.config import Experiment

    changes = list(arguments.set)
    if arguments.run_dir is not None:
        changes.append(f"trainer.run_dir={json.dumps(arguments.run_dir)}")
    experiment = Experiment.read(arguments.config, changes, arguments.allow)
    for note in experiment.notes:
        say(note)
    if arguments.devices is not None:
        check_devices(arguments.devices, (experiment.config.get("trainer") or {}).get("strategy"))
        changes.append(f"seed={experiment.seed}")  # drawn here, if need be, and the same on all processes
        settings = [word for change in changes for word in ("--set", change)]
        allowed = [word for name in arguments.allow for word in ("--allow", name)]
        traceback = ["--traceback"] if arguments.traceback else []
        return launch(arguments.devices, ["fit", arguments.config, *settings, *allowed, *traceback])

    from treadle.cli.training import train

    return train(experiment, experiment.build_trainer(), arguments)
