"""`treadle predict RUN INPUT -o OUTPUT`: what a trained model says of new data."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.cli.arguments import DONE, UsageError, add_allow, add_run, add_traceback
from treadle.cli.evaluate import add_checkpoint

if TYPE_CHECKING:
    from treadle.task import Task
    from treadle.trainer import Trainer

NAME = "predict"
HELP = "write what a run's model says of new data"
DESCRIPTION = """\
Write what a run's model says of new data, in their order.

INPUT   .npy, .npz, .csv, .json or .safetensors: arrays with a row for each sample (several arrays are given
        to the model by name); anything else is one sample, read by the task's load_sample(path)
OUTPUT  .npy, .npz, .csv, .json or .safetensors; anything else is written by the task's
        store_result(result, path). It appears whole or not at all. A .npy file is written batch by batch,
        so it may be larger than memory
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """RUN, INPUT and the options."""
    add_run(parser)
    parser.add_argument("input", metavar="INPUT", help="a file of samples")
    parser.add_argument(
        "-o", "--output", required=True, metavar="OUTPUT", help="where to write the predictions"
    )
    parser.add_argument(
        "--batch-size", type=int, default=256, metavar="N", help="samples at once; default 256"
    )
    add_checkpoint(parser)
    add_allow(parser)
    add_traceback(parser)


def run(arguments: argparse.Namespace) -> int:
    """Predict and write; returns the exit code."""
    from treadle.cli import printing
    from treadle.cli.rebuild import experiment_of, find_run, load

    source, target = Path(arguments.input), Path(arguments.output)
    if not source.exists():
        raise UsageError(f"{source}: there is no such file")
    if not target.absolute().parent.is_dir():
        raise UsageError(f"{target}: there is no folder {target.parent}")
    found = find_run(arguments.which)
    experiment = experiment_of(found, arguments.allow)
    trainer = experiment.build_trainer(progress=False, run_dir=None, strategy="auto")
    task = experiment.build_task()
    _check_output(task, target)
    checkpoint = load(task, found, arguments.checkpoint)
    samples, count = _samples(task, source, arguments.batch_size)
    _predict(trainer, task, samples, target)
    printing.say(f"{count} samples, weights of {printing.shown_path(checkpoint)}")
    print(target)
    return DONE


def _samples(task: Task, path: Path, batch_size: int) -> tuple[Any, int]:
    from treadle.cli import arrays
    from treadle.data import Loader, Source

    if arrays.can_read(path):
        loader = Loader(arrays.read(path), batch_size)
        return loader, loader.num_samples or 0
    from torch.utils.data import default_collate

    _check_defines(task, "load_sample", f"{path.name} is none of {', '.join(arrays.READABLE)}")
    return Source([default_collate([task.load_sample(str(path))])]), 1


def _predict(trainer: Trainer, task: Task, samples: Any, path: Path) -> None:
    from treadle.cli import arrays

    if path.suffix.lower() == ".npy":  # the one format here that can be written as predictions come
        trainer.predict(task, samples, out=path)
        return
    result = trainer.predict(task, samples)
    with arrays.replacing(path) as temporary:
        if arrays.can_write(path):
            arrays.write(temporary, result)
        else:
            task.store_result(result, str(temporary))


def _check_output(task: Task, path: Path) -> None:
    from treadle.cli import arrays

    if not arrays.can_write(path):
        _check_defines(task, "store_result", f"{path.name} is none of {', '.join(arrays.WRITABLE)}")


def _check_defines(task: Task, method: str, reason: str) -> None:
    from treadle.task import Task

    if getattr(type(task), method) is getattr(Task, method):
        raise UsageError(f"{reason}, and {type(task).__name__} defines no {method}")
