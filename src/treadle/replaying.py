"""Run one step of a recorded run again: because runs are exact, it is the same step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from treadle.callbacks import Fingerprints
from treadle.checkpoint import list_checkpoints, read, weights_sha256
from treadle.checkpoint.errors import CheckpointError
from treadle.events import Callback, CancelFit
from treadle.runs import Run
from treadle.state import State
from treadle.task import Task
from treadle.trainer import Trainer

Watcher = Callable[[State], None]


@dataclass
class Replay:
    """A step that was run again.

    Attributes:
        step: its number.
        checkpoint: what the replay started from; None for the run's beginning.
        batches: for each micro-batch of loader data its samples' numbers; None where they have none.
        gradient_norms: the 2-norm of each parameter's gradient before clipping, by name.
        values: what the step logged, by full name.
        recorded: what the run's record has for that step.
        weights_sha256: the fingerprint of the weights after the step.
    """

    step: int
    checkpoint: Path | None
    batches: list[list[int] | None] = field(default_factory=list)
    gradient_norms: dict[str, float] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    recorded: dict[str, float] = field(default_factory=dict)
    weights_sha256: str = ""

    @property
    def differing(self) -> list[str]:
        """Names whose recorded value is not the replayed one, to the bit; durations are left out."""
        return sorted(
            name
            for name, value in self.recorded.items()
            if not name.startswith("time/") and name in self.values and not _same(self.values[name], value)
        )


def replay(
    trainer: Trainer,
    task: Task,
    train: Any,
    val: Any = None,
    *,
    run: Run | str | Path,
    step: int,
    watch: Watcher | None = None,
) -> Replay:
    """Run step `step` of a recorded run again, from the newest checkpoint before it.

    Args:
        trainer, task, train, val: as the run was started with; the record is not written to.
        run: the run, or its folder.
        step: the number of the step, from 1.
        watch: called with the state just before the step, for a debugger.

    Raises:
        ValueError: the run has no such step, or the checkpoints do not fit the task.
    """
    record = run if isinstance(run, Run) else Run.open(run)
    if record.path is None:
        raise ValueError("replay: the run is in memory only, and has no checkpoints")
    last = max((int(record.series(name).steps[-1]) for name in record.names()), default=record.step)
    if not 1 <= step <= max(last, record.step):
        raise ValueError(f"replay: step is {step}; the run has steps 1 to {max(last, record.step)}")
    checkpoint = _before(record.path / "checkpoints", step)
    result = Replay(step, checkpoint, recorded=_values_at(record, step))
    recorder = _Recorder(result, watch)
    kept = [callback for callback in trainer.callbacks if not isinstance(callback, Fingerprints)]
    again = trainer.replace(
        run_dir=None,
        checkpoint=None,
        progress=False,
        seed=record.environment["seed"],
        callbacks=[*kept, recorder],
    )
    scratch = again.fit(task, train, val, resume=checkpoint)
    result.values = _values_at(scratch, step)
    return result


class _Recorder(Callback):
    """Looks at one step and ends the run after it."""

    order = 10_000.0

    def __init__(self, result: Replay, watch: Watcher | None) -> None:
        self._result, self._watch = result, watch
        self._fingerprints = Fingerprints()

    def on_step_start(self, state: State) -> None:
        """The step's loader batches by their samples' numbers."""
        if state.current_step != self._result.step:
            return
        self._fingerprints.on_step_start(state)
        if self._watch is not None:
            self._watch(state)
        batches, progress = state.train_batches, state.progress
        length = batches.length if batches.length is not None else progress.batch + state.accumulate
        for batch in range(progress.batch, min(progress.batch + state.accumulate, length)):
            indices = batches.indices(progress.epoch, batch)
            self._result.batches.append(None if indices is None else indices.tolist())

    def on_batch_start(self, state: State) -> None:
        """The samples' fingerprint."""
        if state.current_step == self._result.step:
            self._fingerprints.on_batch_start(state)

    def on_before_optimizer_step(self, state: State) -> None:
        """Norms of the complete gradients."""
        if state.current_step == self._result.step:
            self._fingerprints.on_before_optimizer_step(state)
            for name, parameter in state.task.named_parameters():
                if parameter.grad is not None:
                    self._result.gradient_norms[name] = float(parameter.grad.norm())

    def on_step_end(self, state: State) -> None:
        """Enough."""
        if state.progress.step == self._result.step:
            self._fingerprints.on_step_end(state)
            self._result.weights_sha256 = weights_sha256(state.task.state_dict())
            raise CancelFit("replayed")


def _before(folder: Path, step: int) -> Path | None:
    for entry in reversed(list_checkpoints(folder)):
        if entry.step < step:
            try:
                read(entry.path)
            except CheckpointError:
                continue
            return entry.path
    return None


def _values_at(run: Run, step: int) -> dict[str, float]:
    values = {}
    for name in run.names():
        series = run.series(name)
        places = (series.steps == step).nonzero()[0]
        if len(places):
            values[name] = float(series.values[places[0]])
    return values


def _same(one: float, other: float) -> bool:
    return one == other or (one != one and other != other)
