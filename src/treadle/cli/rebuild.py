"""From the record of a run back to its objects."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from treadle.cli.arguments import UsageError
from treadle.cli.printing import shown_path
from treadle.config import Experiment
from treadle.runs import Run, find

if TYPE_CHECKING:
    from treadle.task import Task

RUNS = "runs"
"""Where runs are looked for by name."""


def find_run(which: str) -> Run:
    """The run in a folder, or with this id or name under `runs`.

    Raises:
        RunError: there is none, or it is damaged.
    """
    path = Path(which)
    if path.name == "run.json":
        path = path.parent
    return Run.open(path) if path.is_dir() else find(RUNS, which)


def experiment_of(run: Run, allow: Iterable[str], changes: Iterable[str] = ()) -> Experiment:
    """What was run, with what former resumes changed and `changes`.

    Raises:
        UsageError: the run was not started from a configuration.
        ConfigError: the record names something that is not allowed, or the changes do not fit.
    """
    assert run.path is not None
    place = shown_path(run.path)
    if not run.config:
        raise UsageError(
            f"{place} was started from Python, without a configuration: go on there, with "
            f"trainer.fit(..., resume={place!r})"
        )
    former = run.fields.get("overrides", [])
    former = [text for text in former if isinstance(text, str)] if isinstance(former, list) else []
    return Experiment(run.config, f"{place}/config.json", [*former, *changes], allow)


def load(task: Task, run: Run, which: str) -> Path:
    """Load the weights of a checkpoint into a task; returns its folder.

    Args:
        task: as the run's configuration describes it.
        run: where the checkpoints are.
        which: "last", the newest that is whole; "best", by what the checkpoints monitored; or a folder.

    Raises:
        CheckpointError: it is damaged.
        UsageError: there is none, or it is of another model.
    """
    from treadle.loading import read_weights

    try:
        weights, path = read_weights(run, which)
    except ValueError as error:
        raise UsageError(str(error).removeprefix("load_model: ")) from None
    try:
        task.load_state_dict(weights)
    except RuntimeError as error:
        raise UsageError(f"{shown_path(path)} is of another model: {error}") from None
    return path
