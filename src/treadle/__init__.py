"""Treadle: a PyTorch trainer that is exact, free and plain."""

from treadle import callbacks, metrics
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
    "fit",
    "gradient_norm",
    "metrics",
    "seed_all",
]
