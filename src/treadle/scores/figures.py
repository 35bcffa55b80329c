"""Pictures of scores, drawn with matplotlib without its global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from treadle.optional import optional

NAMED = 20
"""Up to so many classes have names on the axes and numbers in the cells."""


def pair() -> tuple[Any, Any, Any]:
    """Two axes side by side, and their figure.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = optional("matplotlib.figure", "pictures", "plots").Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    return left, right, figure


def confusion(axes: Any, matrix: Tensor, names: Sequence[str]) -> None:
    """Counts of true classes (rows) taken for classes (columns)."""
    _cells(axes, matrix, names, names)
    axes.set(title="confusion", xlabel="predicted", ylabel="true")


def counts(axes: Any, matrix: Tensor, names: Sequence[str]) -> None:
    """The four counts of every label."""
    columns = ("true negative", "false positive", "false negative", "true positive")
    _cells(axes, matrix, names, columns)
    axes.set(title="labels", aspect="auto")


def roc(axes: Any, curves: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    """A curve for each class."""
    axes.plot([0, 1], [0, 1], color="0.7", linestyle=":")
    for name, (false_positive, true_positive) in curves.items():
        axes.plot(false_positive.numpy(), true_positive.numpy(), label=name)
    axes.set(title="ROC", xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
    if curves and len(curves) <= NAMED:
        axes.legend()


def agreement(axes: Any, predictions: Tensor, targets: Tensor) -> None:
    """Predictions over targets, and the line of equality."""
    axes.scatter(targets.numpy(), predictions.numpy(), s=8, alpha=0.5)
    ends = [float(targets.min()), float(targets.max())]
    axes.plot(ends, ends, color="0.7", linestyle=":")
    axes.set(title="predicted and true", xlabel="true", ylabel="predicted")


def residuals(axes: Any, predictions: Tensor, targets: Tensor) -> None:
    """Predicted minus true, over predicted."""
    axes.axhline(0, color="0.7", linestyle=":")
    axes.scatter(predictions.numpy(), (predictions - targets).numpy(), s=8, alpha=0.5)
    axes.set(title="residuals", xlabel="predicted", ylabel="predicted - true")


def by_length(axes: Any, values: Sequence[float], name: str) -> None:
    """A value for each length of the list."""
    axes.plot(range(1, len(values) + 1), values, marker="o")
    axes.set(title=f"{name} of the first k", xlabel="k", ylabel=name, ylim=(0, 1.05))


def _cells(axes: Any, matrix: Tensor, rows: Sequence[str], columns: Sequence[str]) -> None:
    values = matrix.numpy()
    axes.imshow(values, cmap="Blues", vmin=0)
    if max(len(rows), len(columns)) > NAMED:
        return
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right")
    axes.set_yticks(range(len(rows)), rows)
    dark = values.max() / 2
    for row, line in enumerate(values.tolist()):
        for column, count in enumerate(line):
            axes.text(column, row, str(count), ha="center", va="center", color="w" if count > dark else "k")
