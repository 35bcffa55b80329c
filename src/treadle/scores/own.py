"""Metrics that the user brings along: of Treadle, torchmetrics, torcheval, Hugging Face, or functions."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from treadle.metrics import as_metric


def checked_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics, none of which is of a kind that cannot be measured.

    Raises:
        TypeError: it is no mapping, or one is no metric.
    """
    if not isinstance(metrics, Mapping):
        raise TypeError(f"scores: metrics is {type(metrics).__name__}; give a mapping of names to metrics")
    for name, metric in metrics.items():
        if not _is_evaluate(metric):
            as_metric(metric, name)
    return dict(metrics)


def measure(
    metrics: Mapping[str, Any], columns: Mapping[str, Any], taken: Mapping[str, Any]
) -> dict[str, float]:
    """The value of every metric over all rows at once; parts of one are "name_part".

    Raises:
        ValueError: a value would have a name that is in `taken`.
    """
    values: dict[str, float] = {}
    for name, metric in metrics.items():
        found = _evaluated(metric, columns) if _is_evaluate(metric) else _updated(metric, columns, name)
        parts = _flat(name, found)
        doubled = [part for part in parts if part in taken or part in values]
        if doubled:
            raise ValueError(f"scores: metrics[{name!r}] gives {doubled[0]!r}, which there is already")
        values |= parts
    return values


def _is_evaluate(metric: Any) -> bool:
    """Whether it has the face of a Hugging Face `EvaluationModule`, which is not imported to tell."""
    kind = type(metric)
    return hasattr(kind, "compute") and hasattr(kind, "add_batch") and not hasattr(kind, "update")


def _evaluated(metric: Any, columns: Mapping[str, Any]) -> Any:
    found = metric.compute(
        predictions=_listed(columns["predictions"]), references=_listed(columns["targets"])
    )
    return next(iter(found.values())) if isinstance(found, Mapping) and len(found) == 1 else found


def _updated(metric: Any, columns: Mapping[str, Any], name: str) -> Any:
    counting = as_metric(copy.deepcopy(metric), name)
    counting.reset()
    counting.update(columns["outputs"], columns["targets"])
    return counting.compute()


def _listed(column: Any) -> Any:
    return column.tolist() if isinstance(column, (Tensor, np.ndarray)) else column


def _flat(name: str, value: Any) -> dict[str, float]:
    if isinstance(value, Mapping):
        return {k: v for part, one in value.items() for k, v in _flat(f"{name}_{part}", one).items()}
    value = _listed(value)
    if isinstance(value, (list, tuple)):
        return {k: v for number, one in enumerate(value) for k, v in _flat(f"{name}_{number}", one).items()}
    try:
        return {name: float(value)}
    except (TypeError, ValueError):
        raise TypeError(f"scores: metrics[{name!r}] gave {value!r:.80}, which is no number") from None
