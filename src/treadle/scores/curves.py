"""Areas and curves over scores, one class against the rest, defined only where both occur."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from treadle.scores.base import torchmetrics

Measure = Callable[[], Tensor | float]


def areas(scores: Tensor, members: Tensor) -> dict[str, Measure]:
    """`auroc` and `average_precision`, means over the columns for which they are defined; NaN without one.

    Args:
        scores: [N, K], higher for likelier members.
        members: [N, K] of bool.
    """
    return {
        "auroc": lambda: _mean_over_columns(scores, members, "binary_auroc"),
        "average_precision": lambda: _mean_over_columns(scores, members, "binary_average_precision"),
    }


def curves(scores: Tensor, members: Tensor, names: Sequence[str]) -> dict[str, tuple[Tensor, Tensor]]:
    """For every column with members and others: the false and the true positive rates of its ROC curve."""
    functional = torchmetrics("classification")
    return {
        names[column]: functional.binary_roc(scores[:, column].contiguous(), members[:, column].long())[:2]
        for column in _defined(members)
        if bool(scores[:, column].isfinite().all())
    }


def numbers(values: Mapping[str, Tensor | float]) -> dict[str, float]:
    """Plain numbers."""
    return {name: float(value) for name, value in values.items()}


def numbers_of(measures: Mapping[str, Measure], scores: Tensor) -> dict[str, float]:
    """The measures' values, or NaN for all of them where a score is not finite: no order exists then."""
    if not bool(scores.isfinite().all()):
        return dict.fromkeys(measures, math.nan)
    return {name: float(measure()) for name, measure in measures.items()}


def _mean_over_columns(scores: Tensor, members: Tensor, name: str) -> float:
    measure = getattr(torchmetrics("classification"), name)
    found = [float(measure(scores[:, k].contiguous(), members[:, k].long())) for k in _defined(members)]
    return sum(found) / len(found) if found else math.nan


def _defined(members: Tensor) -> list[int]:
    count = members.sum(0)
    return torch.nonzero((count > 0) & (count < len(members))).flatten().tolist()
