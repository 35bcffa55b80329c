"""The shape of a configuration: what is known of it without importing what it names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from treadle.config.errors import ConfigError, below, listed, short, suggestion

TOP_LEVEL = ("seed", "task", "data", "trainer")
DATA = ("train", "val", "test")
SPECIFICATION_KEYS = ("class_path", "init_args", "args")
MAX_SEED = 2**32 - 1


def is_specification(value: Any) -> bool:
    """Whether this describes an object: a mapping with a class_path."""
    return isinstance(value, dict) and "class_path" in value


def check_shape(config: Any) -> None:
    """Check everything that can be checked without importing anything.

    Raises:
        ConfigError: keys that nobody knows, parts that are missing or of the wrong kind.
    """
    if not isinstance(config, dict):
        raise ConfigError("", f"must be a mapping with the keys {listed(TOP_LEVEL)}; it is {short(config)}")
    check_keys(config, TOP_LEVEL, "")
    missing = [key for key in ("task", "data") if config.get(key) is None]
    if missing:
        raise ConfigError("", f"{listed(missing)} missing; the keys are {listed(TOP_LEVEL)}")
    _check_seed(config.get("seed"))
    data = config["data"]
    if not isinstance(data, dict):
        raise ConfigError("data", f"must be a mapping with the keys {listed(DATA)}; it is {short(data)}")
    check_keys(data, DATA, "data")
    if data.get("train") is None:
        raise ConfigError("data", "train missing; it is what the task is trained on")
    trainer = config.get("trainer")
    if trainer is not None and not isinstance(trainer, dict):
        raise ConfigError(
            "trainer", f"must be a mapping of arguments of treadle.Trainer; it is {short(trainer)}"
        )
    if trainer is not None and "seed" in trainer:
        raise ConfigError("trainer.seed", "the seed is a top-level key; it seeds models and data too")
    for where, part in (("task", config["task"]), *((f"data.{name}", part) for name, part in data.items())):
        if part is not None and not is_specification(part):
            raise ConfigError(where, f"must be a mapping with class_path and init_args; it is {short(part)}")
    for where, part in specifications(config):
        check_specification(part, where)


def check_specification(part: dict[str, Any], where: str) -> None:
    """Check the keys of {"class_path": ..., "init_args": {...}, "args": [...]} and their kinds.

    Raises:
        ConfigError: one is unknown or of another kind.
    """
    check_keys(part, SPECIFICATION_KEYS, where)
    if not isinstance(part["class_path"], str):
        path = below(where, "class_path")
        raise ConfigError(
            path, f"must be a dotted name such as torch.optim.AdamW; it is {short(part['class_path'])}"
        )
    for key, kind, said in (("init_args", dict, "mapping of arguments"), ("args", list, "list of arguments")):
        if part.get(key) is not None and not isinstance(part[key], kind):
            raise ConfigError(below(where, key), f"must be a {said}; it is {short(part[key])}")


def check_keys(part: dict[str, Any], allowed: tuple[str, ...], where: str) -> None:
    """Raise a ConfigError that lists what is allowed if there is a key that is not."""
    for key in part:
        if key not in allowed:
            hint = suggestion(key, allowed)
            raise ConfigError(below(where, key), f"unknown key; allowed are {listed(allowed)}.{hint}")


def specifications(value: Any, where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object described in a configuration, with its key path, outermost first."""
    if is_specification(value):
        yield where, value
    if isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from specifications(item, below(where, key))


def _check_seed(seed: Any) -> None:
    if seed is None:
        return
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise ConfigError("seed", f"{short(seed)}; it must be a whole number from 0 to {MAX_SEED}")
