"""Trained weights from a run, a checkpoint or a file of weights, put into a model."""

from __future__ import annotations

import warnings
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from treadle.checkpoint import CheckpointError, list_checkpoints, newest, read
from treadle.checkpoint.tensors import deserialize
from treadle.runs import Run, RunError

Model = TypeVar("Model", bound=nn.Module)
MODES = ("min", "max")


def load_model(
    source: Run | str | Path,
    model: Model,
    checkpoint: str | Path = "best",
    *,
    mode: str | None = None,
    part: str = "model",
    averages: bool = True,
) -> Model:
    """Load trained weights into a model or a task, on whatever device it is; returns it.

    Every name and shape must fit. Nothing is unpickled, imported or called on behalf of the files.

    Args:
        source: a run, a run's folder, a checkpoint's folder, or a .safetensors file of weights.
        model: the task that was trained, or its model (a plain module). It is changed in place.
        checkpoint: of a run: "best" by the score it was saved with, "last" for the newest that is whole,
            or a name ("step-00000500") or folder.
        mode: which way the score is better, "min" or "max"; None for what the run's record says ("min"
            where it says nothing).
        part: the attribute of the task that `model` is, where `model` is no task: "generator".
        averages: of a run that averages its weights, take the averages, which are what it evaluated; False
            for the weights that training goes on with.

    Raises:
        ValueError: there is no such run or checkpoint, or it is of another model; the text
            lists what there is.
        CheckpointError: it is damaged.
    """
    saved, path = read_weights(source, checkpoint, mode, averages)
    own, prefix = set(model.state_dict()), f"{part}."
    inside = {name.removeprefix(prefix): value for name, value in saved.items() if name.startswith(prefix)}
    outside = {prefix + name: value for name, value in saved.items()}
    fitting = next((names for names in (saved, inside, outside) if set(names) == own), saved)
    try:
        model.load_state_dict(fitting)
    except RuntimeError as error:
        raise ValueError(f"{path} is of another model: {error}") from None
    return model


def read_weights(
    source: Run | str | Path,
    checkpoint: str | Path = "best",
    mode: str | None = None,
    averages: bool = True,
) -> tuple[dict[str, Any], Path]:
    """The state dict, on the CPU, that `load_model` loads, and the file or folder it is from.

    Raises:
        ValueError, CheckpointError: see `load_model`.
    """
    if mode is not None and mode not in MODES:
        raise ValueError(f"load_model: mode is {mode!r}; allowed are 'min', 'max' and None")
    if not isinstance(source, Run):
        path = Path(source)
        if path.is_file():
            return _read_file(path), path
        if (path / "manifest.json").is_file():
            return _state_dict(read(path), averages), path
        try:
            source = Run.open(path)
        except RunError as error:
            raise ValueError(f"load_model: {error}") from error
    if source.path is None or source.checkpoint_folder is None:
        raise ValueError(
            "load_model: this run is kept in memory only and has no checkpoints; train with a run_dir"
        )
    contents, path = _of_run(source, source.checkpoint_folder, checkpoint, mode)
    return _state_dict(contents, averages), path


def _of_run(run: Run, folder: Path, which: str | Path, mode: str | None) -> tuple[dict[str, Any], Path]:
    if which == "last":
        found = newest(folder)
        if found is None:
            raise ValueError(f"load_model: {run.path} has no checkpoint")
        for skipped, reason in found.skipped:
            warnings.warn(f"skipped the checkpoint {skipped}: {reason}; using {found.path}", stacklevel=4)
        return found.contents, found.path
    path = _best(run, folder, mode) if which == "best" else _named(run, folder, which)
    return read(path), path


def _best(run: Run, folder: Path, mode: str | None) -> Path:
    entries = list_checkpoints(folder)
    # A score of NaN is the score of a run that went wrong, never the best.
    scored = [(one.score, one) for one in entries if one.score is not None and one.score == one.score]
    if not scored:
        hint = "none of its checkpoints has a score; use 'last'" if entries else "has no checkpoint"
        raise ValueError(f"load_model: {run.path}: {hint}")
    sign = 1 if (mode or _recorded_mode(run)) == "max" else -1
    return max(scored, key=lambda one: (sign * one[0], one[1].step))[1].path


def _recorded_mode(run: Run) -> str:
    recorded = run.fields.get("best_by")
    return str(recorded.get("mode", "min")) if isinstance(recorded, dict) else "min"


def _named(run: Run, folder: Path, which: str | Path) -> Path:
    for path in (folder / which, Path(which)):
        if (path / "manifest.json").is_file():
            return path
    names = ", ".join(path.name for path in run.checkpoints) or "none"
    raise ValueError(
        f"load_model: {run.path} has no checkpoint {str(which)!r}; there are {names}, and 'best' and 'last'"
    )


def _state_dict(contents: dict[str, Any], averages: bool) -> dict[str, Any]:
    weights = {**contents.get("model", {}), **contents.get("model_extra", {})}
    for state in contents.get("callbacks", {}).values() if averages else ():
        found = state.get("averages") if isinstance(state, dict) else None
        if isinstance(found, dict):  # of a WeightAveraging, under one name for each of the task's weights
            averaged = {id(weights[name]): value for name, value in found.items() if name in weights}
            weights = {name: averaged.get(id(value), value) for name, value in weights.items()}
    return weights


def _read_file(path: Path) -> dict[str, Any]:
    if path.suffix != ".safetensors":
        raise ValueError(
            f"load_model: {path} is a file; weights are read from a run's or checkpoint's folder, or from "
            "a .safetensors file"
        )
    with BufferedReader(FileIO(path), 1 << 20) as file:

        def fill(buffer: memoryview) -> None:
            if file.readinto(buffer) != len(buffer):
                raise CheckpointError("it ends too early")

        try:
            return dict(deserialize(path.stat().st_size, fill))
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error
