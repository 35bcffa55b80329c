"""One clear line for everything that can be wrong with a configuration."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """Something in a configuration cannot be used.

    Attributes:
        where: the key path, such as "task.init_args.model"; empty where it is about the whole file.
        problem: what was given, and what is allowed.
        source: the file, or the override, that it came from; filled in by whoever knows it.
    """

    def __init__(self, where: str, problem: str, source: str = "") -> None:
        super().__init__(where, problem, source)
        self.where = where
        self.problem = problem
        self.source = source

    def __str__(self) -> str:
        return ": ".join(part for part in (self.source, self.where, self.problem) if part)


def suggestion(given: object, known: Iterable[object]) -> str:
    """' Did you mean "lr"?' for a name close to a known one, or nothing."""
    close = difflib.get_close_matches(str(given), [str(name) for name in known], n=1)
    return f' Did you mean "{close[0]}"?' if close else ""


def listed(names: Iterable[object]) -> str:
    """Names for an error's text."""
    return ", ".join(str(name) for name in names) or "none"


def short(value: object) -> str:
    """A value for an error's text: at most a line of it, with its type."""
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


def below(where: str, key: object) -> str:
    """The key path of something inside `where`."""
    return f"{where}.{key}" if where else str(key)
