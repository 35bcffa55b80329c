"""Which classes and functions of torch, Treadle and the metric libraries a configuration may name."""

from __future__ import annotations

import importlib
from typing import Any

EXPECTED = (
    "a Task, Source, Dataset, Callback, Metric, Schedule, Every, Precision, Strategy, module, optimizer, "
    "scheduler, parallel style, or function of torch.nn.functional"
)

_TREADLE = (
    ("treadle.task", "Task"),
    ("treadle.data", "Source"),
    ("treadle.events", "Callback"),
    ("treadle.events", "Every"),
    ("treadle.metrics", "Metric"),
    ("treadle.schedules", "Schedule"),
    ("treadle.precision", "Precision"),
    ("treadle.strategy", "Strategy"),
    ("torch.nn", "Module"),
    ("torch.utils.data", "Dataset"),
)
_TORCH = (
    # where the class is at home, what it must be
    ("torch.nn.", ("torch.nn", "Module")),
    ("torch.optim.", ("torch.optim", "Optimizer")),
    ("torch.optim.lr_scheduler", ("torch.optim.lr_scheduler", "LRScheduler")),
    ("torch.optim.", ("torch.nn", "Module")),
    ("torch.utils.data.dataset", ("torch.utils.data", "Dataset")),
    ("torch.distributed.tensor.parallel.", ("torch.distributed.tensor.parallel", "ParallelStyle")),
    ("torch.utils.data.sampler", ("torch.utils.data", "Sampler")),
)
# Metrics over text, images and sound fetch models and are left to whoever allows the module.
_TORCHMETRICS = (
    "aggregation",
    "classification",
    "clustering",
    "nominal",
    "regression",
    "retrieval",
    "segmentation",
)
_TORCHEVAL = ("aggregation", "classification", "ranking", "regression", "statistical")
_FUNCTIONAL_HOMES = ("torch.nn.functional", "torch._C._nn", "torch._jit_internal", "torch")


def home_of(found: Any, path: str) -> str:
    """The module where a class or function was defined, however it was named."""
    # Some functions written in C do not say; they are at home where they were found.
    return str(getattr(found, "__module__", None) or path.rpartition(".")[0])


def is_optimizer(found: Any) -> bool:
    """Whether this is a class of optimizers or schedulers, which wait for what they are built from."""
    if not isinstance(found, type):
        return False
    return issubclass(
        found, (_class("torch.optim", "Optimizer"), _class("torch.optim.lr_scheduler", "LRScheduler"))
    )


def is_expected(found: Any, home: str, path: str) -> bool:
    """Whether a configuration has a use for this class or function of a module that is always allowed."""
    root = home.partition(".")[0]
    if root == "treadle":
        return isinstance(found, type) and issubclass(found, tuple(_class(*name) for name in _TREADLE))
    if root == "torch":
        return _is_expected_of_torch(found, home, path)
    if root == "torchmetrics":
        return _is_metric(found, home, "torchmetrics", "torchmetrics.functional", _TORCHMETRICS)
    return _is_metric(found, home, "torcheval.metrics", "torcheval.metrics.functional", _TORCHEVAL)


def _is_expected_of_torch(found: Any, home: str, path: str) -> bool:
    if isinstance(found, type):
        return any(home.startswith(start) and issubclass(found, _class(*name)) for start, name in _TORCH)
    if found is getattr(importlib.import_module("torch.utils.data"), "default_collate", None):
        return True
    module, _, name = path.rpartition(".")
    return (
        module == "torch.nn.functional"
        and home in _FUNCTIONAL_HOMES
        and not name.startswith("boolean_dispatch")
    )


def _is_metric(found: Any, home: str, module: str, functional: str, families: tuple[str, ...]) -> bool:
    if isinstance(found, type):
        family = home.removeprefix(module + ".").partition(".")[0]
        return issubclass(found, _class(module, "Metric")) and family in families
    family = home.removeprefix(functional + ".").partition(".")[0]
    return home.startswith(functional + ".") and family in families


def _class(module: str, name: str) -> type:
    found: type = getattr(importlib.import_module(module), name)
    return found
