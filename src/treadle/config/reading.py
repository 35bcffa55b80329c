"""YAML to plain data: the core schema of YAML 1.2, so that what looks like a number is one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from treadle.config.errors import ConfigError, below, short

MAX_BYTES = 4 << 20
MAX_VALUES = 100_000
"""After aliases are expanded: ten lines of aliases can stand for a billion values."""

_MAX_DEPTH = 100


class _Loader(yaml.SafeLoader):
    """PyYAML reads YAML 1.1, where 1e-3 is a string, 010 is eight, `on` is true and 12:30 is 750."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's design


_TAG = "tag:yaml.org,2002:"
for _name, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+0123456789."),
    ),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"^(?:{_pattern})$"), _first)


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    if text[:2] in ("0o", "0x"):
        return int(text, 0)
    if len(text) > 1000:
        raise yaml.constructor.ConstructorError(
            None, None, f"a number of {len(text)} digits", node.start_mark
        )
    return int(text)


def _construct_float(loader: _Loader, node: yaml.ScalarNode) -> float:
    return float(str(loader.construct_scalar(node)).lower().replace(".inf", "inf").replace(".nan", "nan"))


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        if key.tag == _TAG + "merge":
            continue
        if not isinstance(key, yaml.ScalarNode) or key.tag != _TAG + "str":
            text = key.value if isinstance(key, yaml.ScalarNode) else "this key"
            problem = f"keys are words; {text!r} is {key.tag.removeprefix(_TAG)} (put it in quotes)"
            raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        if key.value in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key.value!r} is given twice", key.start_mark
            )
        seen.add(key.value)
    loader.flatten_mapping(node)
    return {
        loader.construct_object(key): loader.construct_object(value, deep=True) for key, value in node.value
    }


_Loader.add_constructor(_TAG + "int", _construct_int)
_Loader.add_constructor(_TAG + "float", _construct_float)
_Loader.add_constructor(_TAG + "map", _construct_mapping)


def parse(text: str, source: str) -> Any:
    """Plain data (dictionaries with string keys, lists, strings, numbers, booleans, None) from YAML.

    Raises:
        ConfigError: it is not YAML, a key is given twice or is not a word, or there is too much of it.
    """
    try:
        value = yaml.load(text, Loader=_Loader)  # a SafeLoader with fewer types
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(place, f"not valid YAML: {problem}", source) from None
    except RecursionError:
        raise ConfigError("", f"nested deeper than {_MAX_DEPTH}", source) from None
    return plain(value, source)


def read_file(path: Path) -> Any:
    """Plain data from a YAML file.

    Raises:
        ConfigError: see `parse`, or it cannot be read.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ConfigError("", f"more than {MAX_BYTES} bytes; this is no configuration", str(path))
        text = content.decode()
    except OSError as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise ConfigError("", f"cannot be read: {reason}", str(path)) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            "", f"cannot be read: it is not UTF-8 text (byte {error.start})", str(path)
        ) from None
    return parse(text, str(path))


def plain(value: Any, source: str) -> Any:
    """A copy of plain data that shares nothing, not even with itself.

    Raises:
        ConfigError: something in it is not plain, or there is too much of it.
    """
    count = 0

    def copy(value: Any, where: str, depth: int) -> Any:
        nonlocal count
        count += 1
        if count > MAX_VALUES:
            raise ConfigError("", f"more than {MAX_VALUES} values; this is no configuration", source)
        if depth > _MAX_DEPTH:
            raise ConfigError("", f"nested deeper than {_MAX_DEPTH}, or inside itself", source)
        if isinstance(value, dict):
            return {_key(key, where): copy(item, below(where, key), depth + 1) for key, item in value.items()}
        if isinstance(value, list):
            return [copy(item, below(where, index), depth + 1) for index, item in enumerate(value)]
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise ConfigError(where, f"{short(value)} is not plain data", source)

    def _key(key: Any, where: str) -> str:
        if not isinstance(key, str):
            raise ConfigError(where, f"keys are words; {short(key)} is not", source)
        return key

    return copy(value, "", 0)
