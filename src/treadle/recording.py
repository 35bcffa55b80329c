"""Where a run is recorded, what it goes on from, and how it ended."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from treadle.checkpoint import newest, read, weights_sha256
from treadle.runs import Run, RunError, collect_environment, newest_of
from treadle.state import Progress, State

WATCHED = ("torch", "treadle", "numpy", "python", "device", "threads", "deterministic", "seed", "precision")
"""What bit-for-bit resuming depends on; a change is said when a run goes on."""


@dataclass
class Origin:
    """What a fit begins with.

    Attributes:
        run: the record it goes on with; None for a new one.
        contents: the checkpoint it goes on from; None at the beginning.
        step: the checkpoint's step.
        source: the checkpoint's folder.
        skipped: damaged checkpoints that were passed over, with reasons.
    """

    run: Run | None = None
    contents: dict[str, Any] | None = None
    source: Path | None = None
    skipped: list[tuple[Path, str]] = field(default_factory=list)

    @property
    def seed(self) -> int | None:
        """The seed the run was started with, where that is recorded."""
        known = self.contents or (self.run.environment if self.run is not None else {})
        seed = known.get("seed")
        return int(seed) if seed is not None else None


def find_origin(resume: str | Path | None, run_dir: str | Path | None) -> Origin:
    """What `resume` means: None, "last", a run's folder or a checkpoint's folder.

    "last" is the newest run under `run_dir`, or a fresh start where there is none. A run's folder goes on
    with that run from its newest valid checkpoint, or from its beginning when it has none yet. A
    checkpoint's folder starts a new run from there, since the old run's record goes on past it.

    Raises:
        TypeError: it is neither text nor a path.
        ValueError: there is nothing at that place, or "last" without a run_dir.
    """
    if resume is None:
        return Origin()
    if not isinstance(resume, (str, Path)):
        raise TypeError(
            f"resume is {resume!r}; give 'last', a run's folder, a checkpoint's folder, or None to start anew"
        )
    if resume == "last":
        if run_dir is None:
            raise ValueError("resume='last' needs a run_dir to look in; it is None")
        folder = newest_of(Path(run_dir))
        return _of_run(Run.open(folder)) if folder is not None else Origin()
    path = Path(resume)
    if path.is_dir() and (path / "manifest.json").is_file():
        return Origin(contents=read(path), source=path)
    try:
        return _of_run(Run.open(path))
    except RunError as error:
        raise ValueError(f"resume: {error}") from error


def _of_run(run: Run) -> Origin:
    assert run.path is not None
    found = newest(run.path / "checkpoints")
    if found is None:
        return Origin(run=run)
    return Origin(run=run, contents=found.contents, source=found.path, skipped=list(found.skipped))


def begin_record(
    progress: Progress,
    origin: Origin,
    run_dir: Path | None,
    config: Mapping[str, Any],
    facts: Mapping[str, Any],
    setup: Mapping[str, Any],
    changed: Mapping[str, Any],
) -> Run:
    """A new record, or the record of the run that goes on, back at the step of its checkpoint.

    Args:
        progress: where the run begins.
        origin: what it goes on from.
        run_dir: the folder of a new record; None keeps it in memory.
        config: what the run can be rebuilt from.
        facts: what bit-for-bit resuming depends on besides the versions (seed, device, threads, ...).
        setup: what the run is made of; see `treadle.setups`.
        changed: what of that has changed since the checkpoint.
    """
    environment = {**collect_environment(), **facts}
    for path, reason in origin.skipped:
        warnings.warn(f"skipped the checkpoint {path}: {reason}; going on from {origin.source}", stacklevel=4)
    if origin.run is None or origin.run.path is None:
        name = "run" if run_dir is None else run_dir.name
        run = Run.create(run_dir, name=name, config=config, environment=environment, setup=setup)
        if origin.source is not None:
            run.event("forked", progress.step, checkpoint=str(origin.source), changes=dict(changed))
        return run
    moved = changes(origin.run.environment, environment)
    if moved:
        said = ", ".join(f"{name} was {old} and is {new}" for name, (old, new) in moved.items())
        warnings.warn(f"resuming is exact only where nothing changed: {said}", stacklevel=4)
    run = Run.reopen(origin.run.path)
    if origin.contents is None:
        run.rewind(-1)
    else:
        run.rewind(progress.step, origin.contents.get("recorded"))
    run.update(status="running", reason=None, step=progress.step, epoch=progress.epoch, setup=setup)
    skipped = [str(path) for path, _ in origin.skipped]
    run.event("resumed", progress.step, changes={**moved, **changed}, skipped=skipped)
    return run


def check_same_origin(origin: Origin, engine: Any) -> None:
    """Raise a ValueError unless every process goes on from the same place."""
    places = engine.gather(None if origin.source is None else str(origin.source))
    if any(place != places[0] for place in places):
        found = ", ".join(f"rank {rank}: {place or 'nothing'}" for rank, place in enumerate(places))
        raise ValueError(
            f"resume: the processes found different checkpoints ({found}); run_dir must be a folder that all "
            "of them see"
        )


def begin_aside(
    progress: Progress,
    origin: Origin,
    run_dir: Path | None,
    config: Mapping[str, Any],
    facts: Mapping[str, Any],
    setup: Mapping[str, Any],
    changed: Mapping[str, Any],
) -> Run:
    """A record in memory, for a process that leaves the one on disk to rank 0."""
    return begin_record(progress, Origin(), None, config, facts, setup, changed)


@contextmanager
def recorded(state: State) -> Iterator[None]:
    """Whatever happens in here, the record says how the run ended."""
    run, began = state.run, time.time()
    saved = float(run.fields.get("saving_seconds") or 0.0)  # by what is gone on with
    status, reason = "failed", "the process ended"
    try:
        yield
        status = "interrupted" if state.interrupted else "finished" if state.finished else "stopped"
        reason = state.stop_reason or "done"
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}"
        state.values.drop_after(state.progress.step)
        with suppress(Exception):  # the last values before a failure, where the device still gives them
            run.append_curves(state.values.salvage())
        raise
    finally:
        sha = weights_sha256(state.engine.strategy.weights(state.task)) if status != "failed" else None
        run.event(status, state.progress.step, reason=reason, seconds=time.time() - began)
        run.flush()
        run.update(
            status=status,
            reason=reason,
            step=state.progress.step,
            epoch=state.progress.epoch,
            weights_sha256=sha,
            saving_seconds=saved + state.seconds_saving,
        )
        run.close()


def changes(before: dict[str, Any], now: dict[str, Any]) -> dict[str, list[Any]]:
    """What differs between two environments, among that which bit-for-bit resuming depends on."""
    old, new = _flat(before), _flat(now)
    known = [name for name in WATCHED if name in old]  # an older record knows less
    return {name: [old[name], new.get(name)] for name in known if old[name] != new.get(name)}


def _flat(environment: dict[str, Any]) -> dict[str, Any]:
    return {**environment, **environment.get("versions", {})}
