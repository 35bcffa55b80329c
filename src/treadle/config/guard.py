"""What a configuration may name: nothing is imported, and nothing called, that is not let through here.

A file may come from anywhere, so it can widen nothing: modules are added on the command line only. Of the
modules that are always there, only what a configuration has a use for is let through, since much else in
them reads, writes or runs files (torch.load, torch.hub.load, torch.utils.cpp_extension.load).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from treadle import class_path
from treadle.config import kinds
from treadle.config.errors import ConfigError, listed, suggestion

DEFAULT_MODULES = ("treadle", "torch", "torchmetrics", "torcheval")


class Guard:
    """Decides what a configuration may name.

    Args:
        allow: more modules, by the first part of their name, that the user trusts to run; all their classes
            and functions may be named. They are looked for in the current folder too.

    Raises:
        ConfigError: `allow` has something that is no module's name, or a module of the standard library.
    """

    def __init__(self, allow: Iterable[str] = ()) -> None:
        self.allowed = tuple(allow)
        for name in self.allowed:
            option = f"--allow {name}"
            if not name.isidentifier():
                raise ConfigError("", "give the first part of a module's name, such as my_models", option)
            if name in sys.stdlib_module_names:
                raise ConfigError("", "modules of the standard library cannot be allowed", option)
        if self.allowed and (here := str(Path.cwd())) not in sys.path and "" not in sys.path:
            sys.path.append(here)  # last, so that a file here hides no installed module

    def check_name(self, path: str, where: str) -> None:
        """Check a dotted name without importing anything.

        Raises:
            ConfigError: it is malformed, private, or its module is not allowed.
        """
        parts = path.split(".")
        if len(parts) < 2 or not all(part.isidentifier() for part in parts):
            raise ConfigError(where, f"{path!r} is not a dotted name such as torch.optim.AdamW")
        if any(part.startswith("_") for part in parts):
            raise ConfigError(where, f"{path!r} leads through a private name")
        if not self._is_known(parts[0]):
            modules = (*DEFAULT_MODULES, *self.allowed)
            raise ConfigError(
                where,
                f"{path!r} is not allowed: module {parts[0]!r} is none of {listed(modules)}; "
                f"if you trust it, add --allow {parts[0]}.{suggestion(parts[0], modules)}",
            )

    def find(self, path: str, where: str) -> Any:
        """The class or function of a dotted name.

        Raises:
            ConfigError: see `check_name`; or there is no such thing; or it is nothing to build from.
        """
        self.check_name(path, where)
        try:
            found = class_path.locate(path, "")
        except class_path.ClassPathError as error:
            raise ConfigError(where, str(error).removeprefix(": ")) from None
        except ModuleNotFoundError as error:
            raise ConfigError(
                where, f"{path!r} needs the module {error.name!r}, which is not installed"
            ) from error
        except Exception as error:
            raise ConfigError(where, f"importing {path!r} failed: {type(error).__name__}: {error}") from error
        if not isinstance(found, type) and not (callable(found) and hasattr(found, "__name__")):
            raise ConfigError(where, f"{path!r} is {type(found).__name__}, neither a class nor a function")
        home = kinds.home_of(found, path)
        root = home.partition(".")[0]
        if not self._is_known(root):
            raise ConfigError(where, f"{path!r} comes from module {root!r}, which is not allowed")
        if not self._is_trusted(root) and not kinds.is_expected(found, home, path):
            raise ConfigError(where, f"{path!r} is not allowed: it is none of {kinds.EXPECTED}")
        return found

    def may_call(self, function: Any, path: str) -> bool:
        """Whether a function may be called to make an object: only one of a module that the user allowed."""
        return self._is_trusted(kinds.home_of(function, path).partition(".")[0])

    def _is_known(self, root: str) -> bool:
        return root in DEFAULT_MODULES or root in self.allowed

    def _is_trusted(self, root: str) -> bool:
        return root in self.allowed
