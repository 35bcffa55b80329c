"""A trained model as a file that needs no Treadle: torch.export, ONNX, or plain weights.

    treadle.export(task, x[:2], "model.onnx", run=run)     # the best checkpoint of the run
    treadle.export(task, x[:2], "model.pt2")               # the weights that the task has

Every file is run, or read back, and compared with the model before it takes its name.
"""

from __future__ import annotations

import copy
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from treadle.data import map_tree
from treadle.data.batch import leaves
from treadle.interop.formats import FORMATS, Call, ExportError, Format
from treadle.loading import load_model
from treadle.runs import Run
from treadle.supervised_task import SupervisedTask
from treadle.task import Task


def export(
    model: nn.Module,
    example_input: Any,
    path: str | os.PathLike[str],
    *,
    run: Run | str | os.PathLike[str] | None = None,
    checkpoint: str | Path = "best",
    mode: str | None = None,
    part: str = "model",
    format: str | None = None,
    dynamic_batch: bool = True,
    tolerance: float = 1e-4,
) -> Path:
    """Write a model's inference to a file, on the CPU, in eval mode; the model itself is left as it is.

    Args:
        model: a module or a task. Of a `SupervisedTask` its model is exported, of another task its `forward`.
        example_input: what the model is called with: a tensor or array [samples, ...], a tuple of them for
            several arguments, or a mapping for arguments by name.
        path: the file. What was there is replaced once the new one is whole and has been checked.
        run, checkpoint, mode, part: whose weights to take, as in `treadle.load_model` (`part="generator"`
            where `model` is `task.generator`); the model's own where `run` is None.
        format: "torch" (.pt2, loads with torch.export.load), "onnx" (.onnx) or "safetensors" (the weights
            alone, loads with treadle.load_model); None goes by the path's suffix.
        dynamic_batch: whether the file takes any number of samples, or only as many as the example.
        tolerance: how far the file's outputs may be from the model's, relative to the largest output.

    Returns:
        The path.

    Raises:
        TypeError: `model` is no module, or a task that defines no forward.
        ValueError: an argument does not fit, or there is no such checkpoint.
        ExportError: the model cannot be exported, or the file computes something else; nothing is written.
        ImportError: ONNX is asked for and not installed.
    """
    target = Path(path)
    chosen = _format(format, target)
    if not isinstance(model, nn.Module):
        raise TypeError(f"export: model is {type(model).__name__}; it must be a module or a task")
    module = copy.deepcopy(model.model if isinstance(model, SupervisedTask) else model).cpu()
    if isinstance(module, Task):
        module.optimizers = {}
        if type(module).forward is nn.Module.forward:
            raise TypeError(
                f"export: {type(module).__name__} defines no forward; export a part: task.generator"
            )
    if run is not None:
        load_model(run if isinstance(run, Run) else Path(run), module, checkpoint, mode=mode, part=part)
    module.eval().requires_grad_(False)
    call = _call(example_input)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp{target.suffix}")
    try:
        chosen.write(module, call, temporary, dynamic_batch)
        for each in [call, call.resized(call.samples + 1)] if dynamic_batch else [call]:
            _compare(chosen, temporary, module, each, tolerance)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def _format(name: str | None, path: Path) -> Format:
    by_suffix = {one.suffix: key for key, one in FORMATS.items()}
    name = by_suffix.get(path.suffix) if name is None else name
    if name not in FORMATS:
        raise ValueError(
            f"export: the format of {path.name} is {name!r}; allowed are "
            + ", ".join(f"{key!r} ({one.suffix})" for key, one in FORMATS.items())
        )
    if not path.absolute().parent.is_dir():
        raise ValueError(f"export: {path}: there is no folder {path.parent}")
    return FORMATS[name]


def _call(example: Any) -> Call:
    """The example as the arguments of a call, of two samples at least: one would be taken for a constant."""
    tensors = map_tree(lambda leaf: torch.as_tensor(leaf).cpu(), example)
    if not all(leaf.ndim for leaf in leaves(tensors)):
        raise ValueError("export: example_input has a number without dimensions; give samples: x[:2]")
    if isinstance(tensors, Mapping):
        call = Call((), dict(tensors))
    else:
        call = Call(tuple(tensors) if isinstance(tensors, (tuple, list)) else (tensors,), {})
    if not call.samples:
        raise ValueError("export: example_input has no sample")
    return call if call.samples > 1 else call.resized(2)


def _compare(format: Format, path: Path, module: nn.Module, call: Call, tolerance: float) -> None:
    expected = list(format.expected(module, call))
    found = list(format.run(path, call))
    if len(found) != len(expected):
        raise ExportError(f"export: the file gives {len(found)} outputs, the model {len(expected)}")
    for number, (one, other) in enumerate(zip(expected, found, strict=True)):
        if one.shape != other.shape or not _close(one, other, tolerance):
            raise ExportError(
                f"export: output {number} of the file, of shape {tuple(other.shape)}, is not the model's, of "
                f"shape {tuple(one.shape)}, for {call.samples} samples (tolerance {tolerance})"
            )


def _close(expected: Tensor, found: Tensor, tolerance: float) -> bool:
    expected, found = expected.double(), found.double()
    scale = expected[expected.isfinite()].abs().max().item() if expected.isfinite().any() else 1.0
    return torch.allclose(found, expected, rtol=0.0, atol=tolerance * max(scale, 1e-6), equal_nan=True)
