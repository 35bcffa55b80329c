"""`--set trainer.max_epochs=3`: changes to a configuration from the command line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from treadle.config.errors import ConfigError, below, listed, short, suggestion
from treadle.config.reading import parse
from treadle.config.schema import SPECIFICATION_KEYS, TOP_LEVEL, is_specification

Overrides = list[tuple[list[str], Any, str]]
"""(keys, value, the option as it was typed)."""


def parse_overrides(texts: Iterable[str]) -> Overrides:
    """Split "a.b=value" into keys and a value read as YAML.

    Raises:
        ConfigError: there is no "=", an empty key, or the value is not YAML.
    """
    parsed: Overrides = []
    for text in texts:
        option = f"--set {text}"
        path, equals, value = text.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise ConfigError("", "give KEY=VALUE, such as trainer.max_epochs=3", option)
        parsed.append((keys, parse(value, option), option))
    return parsed


def apply(config: dict[str, Any], overrides: Overrides) -> list[str]:
    """Change `config` in place; returns what the user should know about it.

    A key that is not there yet can be given where the thing it belongs to is there; whether that takes it is
    found out when it is checked.

    Raises:
        ConfigError: a path leads nowhere.
    """
    notes: list[str] = []
    for keys, value, option in overrides:
        try:
            notes += _apply_one(config, keys, value, option)
        except ConfigError as error:
            raise ConfigError(error.where, error.problem, option) from None
    return notes


def _apply_one(config: dict[str, Any], keys: list[str], value: Any, option: str) -> list[str]:
    if keys[0] not in TOP_LEVEL:
        hint = suggestion(keys[0], TOP_LEVEL)
        raise ConfigError("", f"there is no {keys[0]!r}; the top-level keys are {listed(TOP_LEVEL)}.{hint}")
    parent: Any = config
    where = ""
    for key in keys[:-1]:
        parent, where = _inside(parent, key, where), below(where, key)
    key = keys[-1]
    if isinstance(parent, list):
        parent[_index(parent, key, where)] = value
        return []
    if not isinstance(parent, dict):
        raise ConfigError("", f"{where} is {short(parent)}; nothing is inside it")
    if is_specification(parent):
        _check_specification_key(parent, key, where)
    dropped: list[str] = []
    if key == "class_path" and is_specification(parent) and parent["class_path"] != value:
        dropped = [*(parent.pop("init_args", None) or {}), *(["args"] if parent.pop("args", None) else [])]
        dropped = [f"{option}: drops {listed(dropped)} of {parent['class_path']}"] if dropped else []
    parent[key] = value
    return dropped


def _inside(parent: Any, key: str, where: str) -> Any:
    if isinstance(parent, list):
        return parent[_index(parent, key, where)]
    if not isinstance(parent, dict):
        raise ConfigError("", f"{where} is {short(parent)}; nothing is inside it")
    made_when_missing = (where == "" and key != "seed") or (is_specification(parent) and key == "init_args")
    if made_when_missing and parent.get(key) is None:
        parent[key] = {}
    if key not in parent:
        if is_specification(parent):
            _check_specification_key(parent, key, where)
        hint = suggestion(key, parent)
        known = f"{where or 'the file'} has {listed(parent)}"
        raise ConfigError("", f"there is no {below(where, key)}; {known}.{hint}")
    return parent[key]


def _check_specification_key(parent: dict[str, Any], key: str, where: str) -> None:
    if key in SPECIFICATION_KEYS:
        return
    close = suggestion(key, SPECIFICATION_KEYS)
    hint = close or f' Did you mean "{where}.init_args.{key}"?'
    raise ConfigError("", f"there is no {below(where, key)}; allowed are {listed(SPECIFICATION_KEYS)}.{hint}")


def _index(values: list[Any], key: str, where: str) -> int:
    if not key.isdecimal() or int(key) >= len(values):
        place = f"{where} is a list with numbers 0 to {len(values) - 1}"
        raise ConfigError("", f"there is no {below(where, key)}; {place}")
    return int(key)
