"""Plain values against type hints: what fits, what is converted, what is said when it does not fit."""

from __future__ import annotations

import collections.abc
import contextlib
import enum
import inspect
import os
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

ANY = (Any,)
NO_FIT = object()
"""What `scalar` returns for a value that fits none of the members."""

_SEQUENCES = (list, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
    type(None): "null",
    Path: "a path",
}


def hints_of(target: Any) -> dict[str, Any]:
    """Hints of the arguments of a class or function; those that cannot be resolved are missing."""
    names = ("__init__", "__new__") if isinstance(target, type) else ()
    functions = [getattr(target, name) for name in names] or [target]
    found: dict[str, Any] = {}
    for function in functions:
        names_known = getattr(function, "__globals__", {})
        for name, annotation in getattr(function, "__annotations__", {}).items():
            # One by one: a hint may name what is only there for type checkers, and the others still count.
            with contextlib.suppress(Exception):
                alone = types.SimpleNamespace(__annotations__={name: annotation})
                found.setdefault(name, typing.get_type_hints(alone, globalns=names_known)[name])
    return found


def members(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a hint, a union taken apart; anything not understood is `Any`."""
    if hint is inspect.Parameter.empty or isinstance(hint, (str, typing.TypeVar)):
        return ANY
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return members(typing.get_args(hint)[0])
    if origin in (typing.Union, types.UnionType):
        return tuple(member for part in typing.get_args(hint) for member in members(part))
    if hint is None:
        return (type(None),)
    known = isinstance(hint, type) or origin is not None or hint in (Any, Callable, typing.Callable)
    return (hint,) if known and hint is not object else ANY


def takes_any(parts: tuple[Any, ...]) -> bool:
    """Whether nothing is known of what fits."""
    return Any in parts


def callable_in(parts: tuple[Any, ...]) -> bool:
    """Whether a function fits."""
    return any(typing.get_origin(part) is collections.abc.Callable or part in _CALLABLES for part in parts)


def class_reference_in(parts: tuple[Any, ...]) -> bool:
    """Whether a class itself fits, as in type[Optimizer]."""
    return any(part is type or typing.get_origin(part) is type for part in parts)


def classes_in(parts: tuple[Any, ...]) -> tuple[type, ...]:
    """The classes whose instances fit and that plain values are not."""
    found = (typing.get_origin(part) or part for part in parts)
    plain = (*_WORDS, *_SEQUENCES, *_MAPPINGS, tuple, set, type, os.PathLike, collections.abc.Callable)
    return tuple(
        part
        for part in found
        if isinstance(part, type) and part not in plain and not issubclass(part, (enum.Enum, Path))
    )


def mapping_values(parts: tuple[Any, ...]) -> Any:
    """The hint of a mapping's values, `Any` where nothing is known, NO_FIT where no mapping fits."""
    for part in parts:
        if (typing.get_origin(part) or part) in _MAPPINGS:
            arguments = typing.get_args(part)
            return arguments[1] if len(arguments) == 2 else Any
    return Any if takes_any(parts) else NO_FIT


def list_items(parts: tuple[Any, ...], length: int) -> tuple[Callable[[list[Any]], Any], list[Any]] | None:
    """(what makes the container, hints of its items) for a list of this length; None where no list fits."""
    for part in parts:
        origin, arguments = typing.get_origin(part) or part, typing.get_args(part)
        if origin is tuple:
            if len(arguments) == 2 and arguments[1] is Ellipsis:
                return tuple, [arguments[0]] * length
            if not arguments:
                return tuple, [Any] * length
            if len(arguments) == length:
                return tuple, list(arguments)
        elif origin in _SEQUENCES or origin is set:
            return (set if origin is set else list), [arguments[0] if arguments else Any] * length
    return (list, [Any] * length) if takes_any(parts) else None


def scalar(value: Any, parts: tuple[Any, ...]) -> Any:
    """The value as one of the members wants it, or NO_FIT. `value` is None, a bool, number or string."""
    if takes_any(parts):
        return value
    for part in parts:
        if typing.get_origin(part) is typing.Literal and any(
            value == literal and type(value) is type(literal) for literal in typing.get_args(part)
        ):
            return value
        if isinstance(part, type) and type(value) is part:
            return value
    for part in parts:
        if part is float and type(value) is int:
            return float(value)
        if not isinstance(value, str) or not isinstance(part, type):
            continue
        if part is os.PathLike or issubclass(part, Path):
            return Path(value)
        if issubclass(part, enum.Enum) and value in part.__members__:
            return part[value]
    return NO_FIT


def described(parts: tuple[Any, ...]) -> str:
    """What fits, in words."""
    words = [_word(part) for part in parts]
    return " or ".join(dict.fromkeys(words))


def _word(part: Any) -> str:
    origin, arguments = typing.get_origin(part) or part, typing.get_args(part)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin in _WORDS:
        return _WORDS[origin]
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        return f"a list of {len(arguments)}"
    if origin in _SEQUENCES or origin in (tuple, set):
        items = f" of {described(members(arguments[0]))}" if arguments else ""
        return f"a list{items}"
    if origin in _MAPPINGS:
        return "a mapping"
    if origin is collections.abc.Callable or part in _CALLABLES:
        return "a function (dotted name)"
    if origin is type:
        return "a class (dotted name)"
    if isinstance(origin, type) and issubclass(origin, enum.Enum):
        return "one of " + ", ".join(origin.__members__)
    if isinstance(origin, type) and issubclass(origin, (Path, os.PathLike)):
        return "a path"
    return f"class_path of a {getattr(origin, '__name__', origin)}"


_CALLABLES = (Callable, typing.Callable, collections.abc.Callable, types.FunctionType)
