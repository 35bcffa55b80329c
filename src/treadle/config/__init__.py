"""From a YAML file to objects: class_path and init_args, checked before anything is imported or built."""

from treadle.config.errors import ConfigError
from treadle.config.experiment import Experiment
from treadle.config.guard import DEFAULT_MODULES, Guard

__all__ = ["DEFAULT_MODULES", "ConfigError", "Experiment", "Guard"]
