"""From the record of a run back to its objects."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


def load(task: Task, run: Run, which: str, mode: str = "min") -> Path:
    """Load the weights of a checkpoint into a task; returns its folder.

    Args:
        task: as the run's configuration describes it.
        run: where the checkpoints are.
        which: "last", the newest that is whole; "best", by the score it was saved with; or a folder.
        mode: "min" or "max": which way the score is better.

    Raises:
        CheckpointError: it is damaged.
        UsageError: there is none, or it is of another model.
    """
    contents, path = _contents(run, which, mode)
    try:
        task.load_state_dict({**contents.get("model", {}), **contents.get("model_extra", {})})
    except RuntimeError as error:
        raise UsageError(f"{shown_path(path)} is of another model: {error}") from None
    return path


def _contents(run: Run, which: str, mode: str) -> tuple[dict[str, Any], Path]:
    from treadle.checkpoint import list_checkpoints, newest, read

    assert run.path is not None
    assert run.checkpoint_folder is not None
    if which == "last":
        found = newest(run.checkpoint_folder)
        if found is None:
            raise UsageError(f"{shown_path(run.path)} has no checkpoint yet")
        for skipped, reason in found.skipped:
            import warnings

            warnings.warn(f"skipped the checkpoint {skipped}: {reason}", stacklevel=3)
        return found.contents, found.path
    if which == "best":
        scored = [one for one in list_checkpoints(run.checkpoint_folder) if one.score is not None]
        if not scored:
            raise UsageError(f"{shown_path(run.path)} has no checkpoint with a score; use --checkpoint last")
        sign = 1 if mode == "max" else -1
        best = max(scored, key=lambda one: (sign * (one.score or 0.0), one.step))
        return read(best.path), best.path
    for path in (Path(which), run.checkpoint_folder / which):
        if path.is_dir():
            return read(path), path
    names = ", ".join(path.name for path in run.checkpoints) or "none"
    raise UsageError(f"--checkpoint {which}: there is no such folder; use last, best, or one of {names}")
