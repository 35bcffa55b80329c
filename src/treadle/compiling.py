"""torch.compile for the modules of a task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

ALLOWED = "True or 'model', False, or a mapping of arguments for torch.compile"


def compile_arguments(given: bool | str | Mapping[str, Any]) -> dict[str, Any] | None:
    """What torch.compile is called with; None for no compiling.

    Each shape is compiled for itself unless the caller wants it otherwise. By default torch would make one
    program for all shapes once it has seen two, and which batch goes through which would depend on what came
    before: a run that is resumed would come to other bits.

    Raises:
        ValueError: `given` is nothing that `Trainer(compile=...)` takes.
    """
    if isinstance(given, Mapping):
        return {"dynamic": False, **given}
    if isinstance(given, bool) or given == "model":
        return {"dynamic": False} if given else None
    raise ValueError(f"Trainer: compile is {given!r}; give {ALLOWED}")


def compile_in_place(modules: Iterable[nn.Module], arguments: Mapping[str, Any]) -> None:
    """Compile modules without a module around them, so that no name in a checkpoint changes.

    `nn.Module.compile` does nothing for torch's own modules, such as an nn.Sequential: what it hands to the
    compiler is a function of torch's, and those are skipped. Here it is one of ours, which calls that.
    """
    for module in modules:
        module._compiled_call_impl = torch.compile(_called(module), **arguments)


def _called(module: nn.Module) -> Any:
    inner: Any = module._call_impl

    def call(*args: Any, **kwargs: Any) -> Any:
        return inner(*args, **kwargs)

    call.__code__ = call.__code__.replace()  # torch keeps, counts and limits what it compiles by this object
    return call
