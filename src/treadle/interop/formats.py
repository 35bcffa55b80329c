"""The formats a model is exported in: how a file is written, and how it is run."""

from __future__ import annotations

import importlib
import logging
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from treadle.checkpoint.files import write_file
from treadle.checkpoint.tensors import serialize
from treadle.data.batch import batch_items, leaves, map_tree
from treadle.loading import read_weights
from treadle.optional import missing, optional


class ExportError(RuntimeError):
    """A model cannot be exported, or the file does not compute what the model does."""


@dataclass(frozen=True)
class Call:
    """What a model is called with: `args` or `kwargs`, one of them empty; tensors [samples, ...]."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def samples(self) -> int:
        """How many samples."""
        return batch_items(self.args or self.kwargs)

    def resized(self, samples: int) -> Call:
        """The same with another number of samples, repeated from the start."""

        def repeat(leaf: Tensor) -> Tensor:
            return leaf[torch.arange(samples) % len(leaf)]

        return Call(map_tree(repeat, self.args), map_tree(repeat, self.kwargs))


class Format:
    """The base class is weights alone: a safetensors file of the module's state dict."""

    suffix: ClassVar[str] = ".safetensors"

    def write(self, module: nn.Module, call: Call, path: Path, dynamic_batch: bool) -> None:
        """Write the file.

        Raises:
            ExportError: it cannot be done.
        """
        state = module.state_dict()
        odd = [name for name, value in state.items() if not isinstance(value, Tensor)]
        if odd:
            raise ExportError(f"export: {odd[0]} is no tensor, and .safetensors holds tensors only")
        write_file(path, serialize(state))

    def expected(self, module: nn.Module, call: Call) -> Iterable[Tensor]:
        """What `run` should give."""
        state = module.state_dict()
        return [state[name] for name in sorted(state)]

    def run(self, path: Path, call: Call) -> Iterable[Tensor]:
        """What the file gives."""
        state, _ = read_weights(path)
        return [state[name] for name in sorted(state)]


class TorchFormat(Format):
    """An exported program (.pt2): a zip of the graph as JSON and the weights as bytes, without pickles.

    Written so; but torch.export.load unpickles what a file written otherwise has, and evaluates its
    expressions: load only files that you trust.
    """

    suffix = ".pt2"

    def write(self, module: nn.Module, call: Call, path: Path, dynamic_batch: bool) -> None:
        """Trace and save."""
        program = traced(module, call, dynamic_batch)
        program.example_inputs = None  # they would be saved as a pickle
        torch.export.save(program, path)

    def expected(self, module: nn.Module, call: Call) -> Iterable[Tensor]:
        """The module's outputs."""
        with torch.no_grad():
            return list(leaves(module(*call.args, **call.kwargs)))

    def run(self, path: Path, call: Call) -> Iterable[Tensor]:
        """The outputs of the saved program."""
        with torch.no_grad():
            return list(leaves(torch.export.load(path).module()(*call.args, **call.kwargs)))


class OnnxFormat(TorchFormat):
    """ONNX, by torch's exporter over torch.export; needs `onnx` and `onnxscript`."""

    suffix = ".onnx"

    def write(self, module: nn.Module, call: Call, path: Path, dynamic_batch: bool) -> None:
        """Trace, translate and save, weights inside."""
        for name in ("onnx", "onnxscript"):
            optional(name, "ONNX files", "export")
        program = traced(module, call, dynamic_batch)
        with _quiet():
            try:
                translated: Any = torch.onnx.export(program, dynamo=True, verbose=False)
            except torch.onnx.errors.OnnxExporterError as error:
                raise ExportError(f"export: torch cannot express this model in ONNX: {error}") from error
            translated.save(os.fspath(path), external_data=False)

    def run(self, path: Path, call: Call) -> Iterable[Tensor]:
        """The outputs as onnxruntime computes them, or ONNX's own reference where that is not installed."""
        outputs: list[Tensor] = onnx_runner(path)(*call.args, **call.kwargs)
        return outputs


FORMATS: dict[str, Format] = {"torch": TorchFormat(), "onnx": OnnxFormat(), "safetensors": Format()}


def traced(module: nn.Module, call: Call, dynamic_batch: bool) -> torch.export.ExportedProgram:
    """The module as a graph.

    Raises:
        ExportError: torch.export cannot trace it.
    """
    shapes: Any = None
    if dynamic_batch:
        shapes = map_tree(lambda leaf: {0: torch.export.Dim.DYNAMIC}, call.args or call.kwargs)
    try:
        with _quiet():
            return torch.export.export(module, call.args, call.kwargs, dynamic_shapes=shapes)
    except Exception as error:
        hint = "; a batch of fixed size may do: dynamic_batch=False" if dynamic_batch else ""
        raise ExportError(
            f"export: torch.export cannot trace {type(module).__name__}{hint}: {error}"
        ) from error


def onnx_runner(path: Path) -> Any:
    """A function of tensors that runs an ONNX file and returns its outputs as a list of tensors.

    Raises:
        ImportError: neither onnxruntime nor onnx is installed.
    """
    session: Any
    try:
        runtime = importlib.import_module("onnxruntime")
        session = runtime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
        names = [given.name for given in session.get_inputs()]
    except ImportError:
        try:
            session = importlib.import_module("onnx.reference").ReferenceEvaluator(os.fspath(path))
        except ImportError as error:
            raise missing("onnxruntime", "predictions from ONNX files", "export", error) from error
        names = list(session.input_names)

    def run(*args: Tensor, **kwargs: Tensor) -> list[Tensor]:
        given = kwargs or dict(zip(names, leaves(args), strict=True))
        return [
            torch.as_tensor(one) for one in session.run(None, {name: given[name].numpy() for name in names})
        ]

    return run


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's warnings about itself, and about libraries that this model may not need."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.filterwarnings("ignore", "The tensor attributes .* were assigned during export")  # RNNs
            yield
    finally:
        logger.setLevel(level)
