"""Any object as plain data that says the same each time: for the record of what was run."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

DEPTH = 2
LONGEST = 200
MOST = 32
_NOT_SAID = ("training",)


def name_of(thing: Any) -> str:
    """The dotted name of a class or function; of anything else that of its class."""
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    module = getattr(named, "__module__", None)
    return named.__qualname__ if module in (None, "builtins") else f"{module}.{named.__qualname__}"


def described(value: Any, depth: int = DEPTH) -> Any:
    """Plain data (numbers, text, None, lists, dictionaries with text for keys) that describe a value.

    An object is its class and its public attributes, those of objects within it too, to a depth. Nothing in
    it depends on the machine or the moment: no addresses, no paths. Large tensors and long lists are their
    sizes. A tensor of one element is read, which waits for the device.

    Args:
        value: anything.
        depth: how many objects deep attributes are looked at.
    """
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return value[:LONGEST]
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, (torch.dtype, torch.device)):
        return str(value)
    if isinstance(value, np.generic):
        return described(value.item())
    if isinstance(value, (Tensor, np.ndarray)):
        return _array(value)
    if isinstance(value, Mapping):
        return {str(key): described(one, depth) for key, one in list(value.items())[:MOST]}
    if isinstance(value, (list, tuple, set, frozenset)):
        if len(value) > MOST:
            return {"class": name_of(type(value)), "length": len(value)}
        items = [described(one, depth) for one in value]
        return sorted(items, key=repr) if isinstance(value, (set, frozenset)) else items
    if isinstance(value, functools.partial):
        more = {"arguments": described(value.args, depth)} if value.args else {}
        return {"class": name_of(value.func), **described(value.keywords, depth), **more}
    if hasattr(value, "__qualname__") or isinstance(value, PurePath):
        return name_of(value)
    return {"class": name_of(value), **(attributes_of(value, depth - 1) if depth > 0 else {})}


def attributes_of(thing: Any, depth: int = DEPTH, without: Collection[str] = ()) -> dict[str, Any]:
    """The public attributes of an object as plain data; texts that look like paths are left out."""
    public = [
        (name, value)
        for name, value in getattr(thing, "__dict__", {}).items()
        if not name.startswith("_") and name not in without and name not in _NOT_SAID and not _is_path(value)
    ]
    return {name: described(value, depth) for name, value in public[:MOST]}


def _array(value: Any) -> Any:
    if isinstance(value, Tensor) and value.numel() == 1 and value.device.type != "meta":
        return described(value.item())  # waits for the device: a learning rate, a weight
    return {"shape": list(value.shape), "dtype": str(value.dtype)}


def _is_path(value: Any) -> bool:
    return isinstance(value, PurePath) or (
        isinstance(value, str) and (value.startswith(("/", "~", ".")) or "\\" in value)
    )
