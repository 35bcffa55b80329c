"""torch.compile for the modules of a task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

ALLOWED = "True or 'model', False, or a mapping of arguments for torch.compile"


class Compiler:
    """Leaves modules as they are. Base class: no compiling."""

    def __bool__(self) -> bool:
        return False

    @contextmanager
    def compiled(self, modules: Iterable[nn.Module]) -> Iterator[None]:
        """The modules are called compiled in here."""
        yield


class TorchCompiler(Compiler):
    """Compiles modules without a module around them, so that no name in a checkpoint changes.

    Each shape is compiled for itself unless the caller wants it otherwise. By default torch would make one
    program for all shapes once it has seen two, and which batch goes through which would depend on what came
    before: a run that is resumed would come to other bits.

    Args:
        arguments: for torch.compile.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self._arguments = {"dynamic": False, **arguments}
        self._made: WeakKeyDictionary[nn.Module, Callable[..., Any]] = WeakKeyDictionary()

    def __bool__(self) -> bool:
        return True

    def __reduce__(self) -> Any:
        return type(self), (self._arguments,)

    @contextmanager
    def compiled(self, modules: Iterable[nn.Module]) -> Iterator[None]:
        """The modules are called compiled in here, and as they were afterwards."""
        before = [(module, module._compiled_call_impl) for module in modules]
        try:
            for module, _ in before:
                if module not in self._made:
                    self._made[module] = torch.compile(_called(module), **self._arguments)
                module._compiled_call_impl = self._made[module]
            yield
        finally:
            for module, former in before:
                module._compiled_call_impl = former


def compiler_of(given: bool | str | Mapping[str, Any]) -> Compiler:
    """What `Trainer(compile=...)` asks for.

    Raises:
        ValueError: `given` is nothing that it takes.
    """
    if isinstance(given, Mapping):
        return TorchCompiler(given)
    if isinstance(given, bool) or given == "model":
        return TorchCompiler({}) if given else Compiler()
    raise ValueError(f"Trainer: compile is {given!r}; give {ALLOWED}")


def _called(module: nn.Module) -> Callable[..., Any]:
    """A function of ours that calls the module.

    `nn.Module.compile` does nothing for torch's own modules, such as an nn.Sequential: what it hands to the
    compiler is a function of torch's, and those are skipped.
    """
    inner: Any = module._call_impl

    def call(*args: Any, **kwargs: Any) -> Any:
        return inner(*args, **kwargs)

    call.__code__ = call.__code__.replace()  # torch keeps, counts and limits what it compiles by this object
    return call
