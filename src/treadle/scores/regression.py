"""Scores of numbers that should come close to others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from treadle.collecting import Results
from treadle.scores import figures
from treadle.scores.base import Scores, columns_of, tensor_of, torchmetrics


class RegressionScores(Scores):
    """rmse, mse, mae, max_error, r2, explained_variance, pearson, spearman, in double precision.

    Several outputs are averaged, each with the same weight. What needs two samples or values that differ
    (r2 and after it) is NaN without them, and everything is NaN where a prediction is not finite.
    """

    kind: ClassVar[str] = "regression"
    default_headline: ClassVar[str | None] = "rmse"

    def compute(self) -> dict[str, float]:
        """The values; see the class."""
        predictions, targets = self._columns["predictions"], self._columns["targets"]
        error = predictions - targets
        mse = error.square().mean(0)
        values: dict[str, Tensor | float] = {
            "rmse": mse.sqrt().mean(),
            "mse": mse.mean(),
            "mae": error.abs().mean(),
            "max_error": error.abs().amax(0).mean(),
        }
        varied = len(targets) > 1 and bool((targets.amax(0) > targets.amin(0)).all())
        moved = varied and bool((predictions.amax(0) > predictions.amin(0)).all())
        functional = torchmetrics("regression")
        for name, defined, measure in (
            ("r2", varied, functional.r2_score),
            ("explained_variance", varied, functional.explained_variance),
            ("pearson", moved, functional.pearson_corrcoef),
            ("spearman", moved, functional.spearman_corrcoef),
        ):
            values[name] = measure(predictions, targets).mean() if defined else math.nan
        if not bool(error.isfinite().all()):
            return dict.fromkeys(values, math.nan)
        return {name: float(value) for name, value in values.items()}

    def figure(self) -> Any:
        """What was predicted over what was true, and the residuals over what was predicted."""
        left, right, figure = figures.pair()
        predictions, targets = self._columns["predictions"], self._columns["targets"]
        figures.agreement(left, predictions.reshape(-1), targets.reshape(-1))
        figures.residuals(right, predictions.reshape(-1), targets.reshape(-1))
        return figure


def regression(
    results: Results | Sequence[Any],
    *,
    metrics: Mapping[str, Any] | None = None,
    headline: str | None = None,
    better: str | None = None,
) -> RegressionScores:
    """Scores of predicted numbers [N] or [N, D] (a last dimension of 1 may be missing in one of them).

    Args:
        results: what `Trainer.results` gave, or a pair (outputs, targets).
        metrics, headline, better: see `Scores`. The headline is rmse.

    Raises:
        ValueError: the shapes do not fit each other, or there is no sample.
        TypeError: predictions or targets are no tensors.
    """
    given = columns_of(results)
    predictions, targets = (tensor_of(given, name).double() for name in ("predictions", "targets"))
    if predictions.shape == (*targets.shape, 1):
        predictions = predictions.squeeze(-1)
    elif targets.shape == (*predictions.shape, 1):
        targets = targets.squeeze(-1)
    if predictions.shape != targets.shape or not targets.numel():
        raise ValueError(
            f"scores: the predictions have shape {tuple(predictions.shape)} and the targets "
            f"{tuple(targets.shape)}; they must be equal and not empty"
        )
    shape = (len(targets), -1) if targets.ndim > 1 else (len(targets),)
    columns = {"predictions": predictions.reshape(shape), "targets": targets.reshape(shape)}
    columns["outputs"] = columns["predictions"]
    return RegressionScores(columns, metrics=metrics, headline=headline, better=better)
