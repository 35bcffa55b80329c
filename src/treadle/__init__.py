"""Treadle: a PyTorch trainer that is exact, free and plain.

Names are imported when they are first asked for (PEP 562), so that what needs no torch, such as
`treadle --help` or `treadle.Run`, does not wait for it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from treadle import callbacks, data, metrics
    from treadle.callbacks import Checkpoints
    from treadle.data import Batches, Loader, Source
    from treadle.engine import Engine, gradient_norm
    from treadle.events import (
        Callback,
        CancelBatch,
        CancelEpoch,
        CancelFit,
        CancelStep,
        Every,
        Hooks,
    )
    from treadle.precision import Precision
    from treadle.quick import fit
    from treadle.rng import seed_all
    from treadle.runs import Run, RunError
    from treadle.schedules import Schedule
    from treadle.signals import Interrupted
    from treadle.state import Progress, State
    from treadle.strategies import Strategy
    from treadle.task import SupervisedTask, Task
    from treadle.trainer import Trainer

__version__ = "0.1.0"

_HOMES = {
    "callbacks": ("Checkpoints",),
    "data": ("Batches", "Loader", "Source"),
    "engine": ("Engine", "gradient_norm"),
    "events": ("Callback", "CancelBatch", "CancelEpoch", "CancelFit", "CancelStep", "Every", "Hooks"),
    "metrics": (),
    "precision": ("Precision",),
    "quick": ("fit",),
    "rng": ("seed_all",),
    "runs": ("Run", "RunError"),
    "schedules": ("Schedule",),
    "signals": ("Interrupted",),
    "state": ("Progress", "State"),
    "strategies": ("Strategy",),
    "task": ("SupervisedTask", "Task"),
    "trainer": ("Trainer",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Batches",
    "Callback",
    "CancelBatch",
    "CancelEpoch",
    "CancelFit",
    "CancelStep",
    "Checkpoints",
    "Engine",
    "Every",
    "Hooks",
    "Interrupted",
    "Loader",
    "Precision",
    "Progress",
    "Run",
    "RunError",
    "Schedule",
    "Source",
    "State",
    "Strategy",
    "SupervisedTask",
    "Task",
    "Trainer",
    "__version__",
    "callbacks",
    "data",
    "fit",
    "gradient_norm",
    "metrics",
    "seed_all",
]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        value = getattr(importlib.import_module(f"treadle.{_HOME_OF[name]}"), name)
        globals()[name] = value
        return value
    if name in __all__:
        return importlib.import_module(f"treadle.{name}")
    raise AttributeError(f"module 'treadle' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
