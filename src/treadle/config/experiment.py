"""A whole configuration: read, changed from the command line, checked, and built part by part."""

from __future__ import annotations

import copy
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.config import overrides as changes
from treadle.config import reading, schema
from treadle.config.errors import ConfigError, below, listed
from treadle.config.guard import Guard

if TYPE_CHECKING:
    from treadle.data import Source
    from treadle.task import Task
    from treadle.trainer import Trainer


class Experiment:
    """A configuration that has the right shape and names only what is allowed.

    Args:
        config: a mapping with the keys seed, task, data and trainer. It is not changed.
        source: where it came from, for error messages: a file's name.
        overrides: changes as typed after --set, "trainer.max_epochs=3".
        allow: modules that may be named besides torch's, Treadle's and the metric libraries'.

    Attributes:
        config: the configuration with the changes and the seed in it, as the record keeps it.
        notes: what the user should know of the changes.

    Raises:
        ConfigError: something is unknown, missing, of another kind or not allowed. Nothing that the
            configuration names has been imported then.
    """

    def __init__(
        self, config: Any, source: str = "", overrides: Iterable[str] = (), allow: Iterable[str] = ()
    ) -> None:
        self.source = source
        self._guard = Guard(allow)
        parsed = changes.parse_overrides(overrides)
        self._origins = {".".join(keys): option for keys, _, option in parsed}
        try:
            config = reading.plain(config, "")
            if not isinstance(config, dict):
                schema.check_shape(config)
            self.notes = changes.apply(config, parsed)
            schema.check_shape(config)
            for where, part in schema.specifications(config):
                self._guard.check_name(part["class_path"], below(where, "class_path"))
        except ConfigError as error:
            raise self._located(error) from error.__cause__
        if config.get("seed") is None:
            config = {"seed": secrets.randbelow(2**32), **{k: v for k, v in config.items() if k != "seed"}}
        self.config: dict[str, Any] = {
            key: config[key] for key in schema.TOP_LEVEL if config.get(key) is not None
        }

    @classmethod
    def read(cls, path: str | Path, overrides: Iterable[str] = (), allow: Iterable[str] = ()) -> Experiment:
        """The configuration in a YAML file.

        Raises:
            ConfigError: it cannot be read, or see the class.
        """
        return cls(reading.read_file(Path(path)), str(path), overrides, allow)

    @property
    def seed(self) -> int:
        """What everything random follows from; drawn if the configuration had none."""
        return int(self.config["seed"])

    @property
    def data_names(self) -> list[str]:
        """Which of train, val and test there are."""
        return [name for name in schema.DATA if self.config["data"].get(name) is not None]

    def build_task(self) -> Task:
        """The task; its initial weights follow from the seed alone.

        Raises:
            ConfigError: it cannot be built.
        """
        from treadle.task import Task

        task: Task = self._build(self.config["task"], Task, "task")
        return task

    def build_data(self, name: str) -> Source:
        """The data called train, val or test.

        Raises:
            ConfigError: there are none, or they cannot be built.
        """
        from treadle.data import Source

        if name not in self.data_names:
            raise self._located(
                ConfigError("data", f"there is no {name}; there is {listed(self.data_names)}")
            )
        data: Source = self._build(self.config["data"][name], Source, f"data.{name}")
        return data

    def build_trainer(self, **changes: Any) -> Trainer:
        """The trainer, with some of its arguments replaced by `changes`.

        Raises:
            ConfigError: it cannot be built.
        """
        from treadle.config.build import Builder
        from treadle.trainer import Trainer

        arguments = copy.deepcopy(self.config.get("trainer") or {}) | {"seed": self.seed} | changes
        self._seed()
        try:
            trainer: Trainer = Builder(self._guard).call(Trainer, arguments, "trainer", "Trainer")
        except ConfigError as error:
            raise self._located(error) from error.__cause__
        return trainer

    def _build(self, specification: Any, kind: type, where: str) -> Any:
        from treadle.config.build import Builder

        self._seed()
        try:
            return Builder(self._guard).build(copy.deepcopy(specification), kind, where)
        except ConfigError as error:
            raise self._located(error) from error.__cause__

    def _seed(self) -> None:
        # Before each part anew, so that what a part draws does not depend on which others were built.
        from treadle import rng

        rng.seed_all(self.seed)

    def _located(self, error: ConfigError) -> ConfigError:
        """The error with the file, or the option that gave the value."""
        if error.source:
            return error
        for key, option in self._origins.items():
            if error.where == key or error.where.startswith(f"{key}."):
                return ConfigError(error.where, error.problem, option)
        return ConfigError(error.where, error.problem, self.source)
