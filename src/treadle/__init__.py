"""Treadle: a PyTorch trainer that is exact, free and plain.

Names are imported when they are first asked for (PEP 562), so that what needs no torch, such as
`treadle --help` or `treadle.Run`, does not wait for it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from treadle import callbacks, data, finders, interop, loggers, metrics, schedules, scores
    from treadle.alternating_task import AlternatingTask
    from treadle.callbacks import Checkpoints
    from treadle.closure_task import ClosureTask, SupervisedClosureTask
    from treadle.collecting import Results
    from treadle.data import Batches, Loader, Source
    from treadle.engine import Engine
    from treadle.events import (
        Callback,
        CancelBatch,
        CancelEpoch,
        CancelFit,
        CancelStep,
        Every,
        Hooks,
    )
    from treadle.finders import find_batch_size, find_learning_rate
    from treadle.interop.exporting import export
    from treadle.interop.huggingface import CausalLanguageTask, HuggingFaceTask
    from treadle.interop.predictor import Predictor
    from treadle.interop.sklearn import TreadleClassifier as TreadleClassifier
    from treadle.interop.sklearn import TreadleRegressor as TreadleRegressor
    from treadle.launching import launch
    from treadle.loading import load_model
    from treadle.norms import gradient_norm
    from treadle.parallel.all_reduce import AllReduce
    from treadle.parallel.ddp import DDP
    from treadle.parallel.fsdp2 import FSDP2
    from treadle.parallel.tensor_parallel import TensorParallel
    from treadle.precision import Precision
    from treadle.quick import fit
    from treadle.replaying import replay
    from treadle.report.callback import ReportWriter
    from treadle.rng import seed_all
    from treadle.runs import Run, RunError
    from treadle.schedules import Schedule
    from treadle.signals import Interrupted
    from treadle.state import Progress, State
    from treadle.strategy import Strategy
    from treadle.supervised_task import SupervisedTask
    from treadle.task import Task
    from treadle.trainer import Trainer

__version__ = "0.1.0"

_HOMES = {
    "alternating_task": ("AlternatingTask",),
    "callbacks": ("Checkpoints",),
    "closure_task": ("ClosureTask", "SupervisedClosureTask"),
    "collecting": ("Results",),
    "data": ("Batches", "Loader", "Source"),
    "engine": ("Engine",),
    "events": ("Callback", "CancelBatch", "CancelEpoch", "CancelFit", "CancelStep", "Every", "Hooks"),
    "finders": ("find_batch_size", "find_learning_rate"),
    "interop": (),
    "interop.exporting": ("export",),
    "interop.huggingface": ("CausalLanguageTask", "HuggingFaceTask"),
    "interop.predictor": ("Predictor",),
    "interop.sklearn": ("TreadleClassifier", "TreadleRegressor"),
    "loading": ("load_model",),
    "loggers": (),
    "metrics": (),
    "norms": ("gradient_norm",),
    "parallel.all_reduce": ("AllReduce",),
    "parallel.ddp": ("DDP",),
    "parallel.fsdp2": ("FSDP2",),
    "parallel.tensor_parallel": ("TensorParallel",),
    "precision": ("Precision",),
    "launching": ("launch",),
    "quick": ("fit",),
    "replaying": ("replay",),
    "report.callback": ("ReportWriter",),
    "rng": ("seed_all",),
    "runs": ("Run", "RunError"),
    "schedules": ("Schedule",),
    "scores": (),
    "signals": ("Interrupted",),
    "state": ("Progress", "State"),
    "strategy": ("Strategy",),
    "supervised_task": ("SupervisedTask",),
    "task": ("Task",),
    "trainer": ("Trainer",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

# Without TreadleClassifier and TreadleRegressor, so that `from treadle import *` works without scikit-learn.
__all__ = [
    "DDP",
    "FSDP2",
    "AllReduce",
    "AlternatingTask",
    "Batches",
    "Callback",
    "CancelBatch",
    "CancelEpoch",
    "CancelFit",
    "CancelStep",
    "CausalLanguageTask",
    "Checkpoints",
    "ClosureTask",
    "Engine",
    "Every",
    "Hooks",
    "HuggingFaceTask",
    "Interrupted",
    "Loader",
    "Precision",
    "Predictor",
    "Progress",
    "ReportWriter",
    "Results",
    "Run",
    "RunError",
    "Schedule",
    "Source",
    "State",
    "Strategy",
    "SupervisedClosureTask",
    "SupervisedTask",
    "Task",
    "TensorParallel",
    "Trainer",
    "__version__",
    "callbacks",
    "data",
    "export",
    "find_batch_size",
    "find_learning_rate",
    "finders",
    "fit",
    "gradient_norm",
    "interop",
    "launch",
    "load_model",
    "loggers",
    "metrics",
    "replay",
    "schedules",
    "scores",
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
