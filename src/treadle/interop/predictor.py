"""Predictions from a saved model, without task, trainer or run."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from treadle.data import Loader, concatenate, move
from treadle.interop.formats import onnx_runner


class Predictor:
    """A function of data: outputs in data order, on the CPU, computed batch by batch.

        predict = Predictor.load("model.onnx")
        predict(x)                                        # x: a tensor, an array, a tuple or mapping of them

    Args:
        model: a module, which is put in eval mode, or any function of a batch: of one tensor, of a tuple's
            parts, or of a mapping's values by name.
        batch_size: samples at once.

    Raises:
        TypeError: `model` cannot be called.
    """

    def __init__(self, model: Callable[..., Any], batch_size: int = 256) -> None:
        if not callable(model):
            raise TypeError(f"Predictor: model is {type(model).__name__}; it must be a module or a function")
        self.model = model.eval() if isinstance(model, nn.Module) else model
        self.batch_size = batch_size
        parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
        self.device = torch.device("cpu") if parameter is None else parameter.device

    @classmethod
    def load(cls, path: str | os.PathLike[str], batch_size: int = 256, *, trusted: bool = False) -> Self:
        """The predictor of a file that `treadle.export` wrote.

        Args:
            path: an .onnx file, or a .pt2 file.
            batch_size: samples at once.
            trusted: must be True for .pt2: torch.export.load may run code that such a file brings along.

        Raises:
            ValueError: there is no such file, it is of another kind, or it is a .pt2 and not trusted.
            ImportError: nothing that runs ONNX is installed.
        """
        path = Path(path)
        if path.suffix not in (".onnx", ".pt2"):
            raise ValueError(
                f"Predictor: {path.name} is neither .onnx nor .pt2; see treadle.load_model for weights"
            )
        if not path.is_file():
            raise ValueError(f"Predictor: {path}: there is no such file")
        if path.suffix == ".onnx":
            run = onnx_runner(path)
            return cls(lambda *args, **kwargs: _single(run(*args, **kwargs)), batch_size)
        if not trusted:
            raise ValueError(
                f"Predictor: {path}: torch may run code from a .pt2 file; if you know who wrote it, say "
                "trusted=True, or export to .onnx"
            )
        program = torch.export.load(path).module()
        return cls(lambda *args, **kwargs: program(*args, **kwargs), batch_size)

    def __call__(self, data: Any) -> Any:
        """The outputs for all of `data`, given as `Loader` takes them, joined in their order."""
        outputs = []
        with torch.no_grad():
            for batch in Loader(data, self.batch_size):
                given = move(batch, self.device)
                if isinstance(given, Mapping):
                    output = self.model(**given)
                else:
                    output = self.model(*given) if isinstance(given, (tuple, list)) else self.model(given)
                outputs.append(move(output, torch.device("cpu")))
        return concatenate(outputs)


def _single(outputs: list[Any]) -> Any:
    return outputs[0] if len(outputs) == 1 else tuple(outputs)
