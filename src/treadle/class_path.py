"""Dotted names to objects: the only door from text to code, with a guard at it."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any


class ClassPathError(ValueError):
    """A dotted name that cannot be used; the text says which, why, and what is allowed."""


def locate(path: str, where: str) -> Any:
    """The class or function named by a dotted path such as "torch.optim.AdamW".

    Raises:
        ClassPathError: the path is malformed, leads through a private name, or there is no such thing.
    """
    parts = path.split(".") if isinstance(path, str) else []
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise ClassPathError(
            f"{where}: class_path is {path!r}; it must be a dotted name such as torch.optim.AdamW"
        )
    if any(part.startswith("__") for part in parts):
        raise ClassPathError(f"{where}: class_path {path!r} leads through a private name")
    for cut in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:cut])
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            # A module that is there but misses one of its own imports must say so itself.
            if error.name is None or not (module == error.name or module.startswith(error.name + ".")):
                raise
            continue
        for part in parts[cut:]:
            if not hasattr(found, part):
                close = difflib.get_close_matches(part, [name for name in dir(found) if name[0] != "_"], n=1)
                hint = f'. Did you mean "{".".join([*parts[:cut], *close])}"?' if close else ""
                missing = ".".join(parts[cut:])
                raise ClassPathError(f"{where}: {module} has no {missing!r} (class_path {path!r}){hint}")
            found = getattr(found, part)
        return found
    raise ClassPathError(f"{where}: there is no module {parts[0]!r} (class_path {path!r})")


def is_specification(value: Any) -> bool:
    """Whether `value` is a configuration of an object: {"class_path": ..., "init_args": {...}}."""
    return isinstance(value, Mapping) and "class_path" in value


def factory(specification: Mapping[str, Any], where: str) -> Callable[..., Any]:
    """A callable that builds what {"class_path": ..., "init_args": {...}} describes.

    The mapping is read, never changed. Arguments that the class does not know are refused here, not
    when the object is built.

    Raises:
        ClassPathError: unknown keys, no such class, or an argument that it does not take.
    """
    unknown = sorted(set(specification) - {"class_path", "init_args"})
    if unknown:
        raise ClassPathError(f"{where}: unknown keys {unknown}; allowed are class_path and init_args")
    target = locate(specification["class_path"], where)
    if not callable(target):
        raise ClassPathError(
            f"{where}: {specification['class_path']} is {type(target).__name__}, not a class"
        )
    arguments = dict(specification.get("init_args") or {})
    try:
        signature = inspect.signature(target)
    except ValueError:  # some C functions have none; they check their arguments themselves
        return functools.partial(target, **arguments)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    foreign = sorted(set(arguments) - set(signature.parameters))
    if foreign and not takes_any:
        known = ", ".join(signature.parameters)
        raise ClassPathError(f"{where}: {specification['class_path']} takes no {foreign}; it takes {known}")
    return functools.partial(target, **arguments)
