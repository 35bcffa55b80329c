"""Counts of right and wrong classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from treadle.metrics.base import Metric, place


def predict(output: Tensor, target: Tensor, threshold: float, metric: str) -> Tensor:
    """The predicted classes, in the shape of `target`: int64, or bool where the scores are binary.

    Raises:
        ValueError: the shapes do not fit each other.
    """
    shape, wanted = output.shape, target.shape
    if shape == wanted and shape:
        return output > threshold
    if output.ndim == target.ndim + 1 and target.ndim and shape[0] == wanted[0] and shape[2:] == wanted[1:]:
        return output.argmax(1) if shape[1] != 1 else output.squeeze(1) > threshold
    hint = ""
    if len(wanted) > 1 and wanted[1:] == (1,) and shape[:1] == wanted[:1]:
        hint = " Is the target a column? Give it as target.squeeze(1)."
    raise ValueError(
        f"{metric}: the output has shape {tuple(shape)} and the target {tuple(wanted)}. They must be class "
        "scores (N, C, ...) with class numbers (N, ...), or binary scores and 0/1 labels of one shape "
        f"(an output (N, 1) may have labels (N,)).{hint}"
    )


class Accuracy(Metric):
    """The share of items whose predicted class is the target.

    Args:
        threshold: binary scores above it predict class 1; 0.0 for logits, 0.5 for probabilities.
        ignore_index: targets of this value do not count, as in `cross_entropy`.

    Outputs (N, C, ...) are class scores, highest wins, for class numbers (N, ...). Outputs shaped like
    the target, or (N, 1) for (N,), are binary scores; every element counts.
    """

    correct: Tensor
    count: int | Tensor

    def __init__(self, threshold: float = 0.0, ignore_index: int | None = None) -> None:
        super().__init__()
        self.threshold = threshold
        self.ignore_index = ignore_index
        self.accumulate("correct", torch.zeros((), dtype=torch.int64))
        self.accumulate("count", 0 if ignore_index is None else torch.zeros((), dtype=torch.int64))

    def update(self, output: Tensor, target: Tensor) -> None:
        """Count one batch.

        Raises:
            ValueError: the shapes do not fit each other.
        """
        self._count(predict(output, target, self.threshold, "Accuracy") == target, target)

    def _count(self, right: Tensor, target: Tensor) -> None:
        if self.ignore_index is None:
            self.count += target.numel()
        else:
            counted = target != self.ignore_index
            right = right & counted
            self.count += counted.count_nonzero()
        # count_nonzero takes less than half of what sum takes over booleans.
        self.correct += right.count_nonzero()

    def compute(self) -> Tensor:
        """The accuracy, from 0 to 1."""
        return self.ratio(self.correct, self.count)


class TopKAccuracy(Accuracy):
    """The share of items whose target is among the k classes with the highest scores.

    Args:
        k: how many classes are looked at, at least 1.
        ignore_index: targets of this value do not count.

    Outputs are class scores (N, C, ...) for class numbers (N, ...).

    Raises:
        ValueError: k is below 1.
    """

    def __init__(self, k: int = 5, ignore_index: int | None = None) -> None:
        super().__init__(ignore_index=ignore_index)
        if k < 1:
            raise ValueError(f"TopKAccuracy: k is {k!r}; it must be at least 1")
        self.k = k

    def update(self, output: Tensor, target: Tensor) -> None:
        """Count one batch.

        Raises:
            ValueError: the shapes do not fit each other, or there are fewer than k classes.
        """
        shape, wanted = output.shape, target.shape
        if output.ndim != target.ndim + 1 or shape[:1] != wanted[:1] or shape[2:] != wanted[1:]:
            raise ValueError(
                f"TopKAccuracy: the output has shape {tuple(shape)} and the target {tuple(wanted)}; "
                "they must be class scores (N, C, ...) with class numbers (N, ...)"
            )
        if shape[1] < self.k:
            raise ValueError(
                f"TopKAccuracy: k is {self.k}, but the output {tuple(shape)} has {shape[1]} classes"
            )
        self._count((output.topk(self.k, dim=1).indices == target.unsqueeze(1)).any(1), target)


class F1(Metric):
    """The harmonic mean of precision and recall, 2 TP / (2 TP + FP + FN).

    Args:
        average: "macro", the mean over classes that occur in targets or predictions; "weighted", the same
            weighted by how often a class is the target; "micro", over all decisions (accuracy, where
            each item has one class); "binary", of class 1 alone.
        num_classes: how many classes there are; left out, the width of the first output.
        threshold: for binary scores, as in `Accuracy`.
        ignore_index: targets of this value do not count.

    As in scikit-learn, a class that is never predicted rightly has F1 0.

    Raises:
        ValueError: `average` is unknown, or `num_classes` is below 2.
    """

    counts: Tensor

    def __init__(
        self,
        average: str = "macro",
        num_classes: int | None = None,
        threshold: float = 0.0,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        if average not in _AVERAGES:
            raise ValueError(f"F1: average is {average!r}; allowed are {', '.join(map(repr, _AVERAGES))}")
        if num_classes is not None and num_classes < 2:
            raise ValueError(f"F1: num_classes is {num_classes!r}; it must be at least 2")
        self.average = average
        self.threshold = threshold
        self.ignore_index = ignore_index
        # Rows: items rightly in the class, items predicted to be in it, items that are in it.
        self.accumulate("counts", torch.zeros(3, num_classes or 0, dtype=torch.int64))

    def update(self, output: Tensor, target: Tensor) -> None:
        """Count one batch.

        Raises:
            ValueError: the shapes do not fit each other.
        """
        predicted = predict(output, target, self.threshold, "F1")
        if self.counts.shape[1] == 0:
            width = 2 if predicted.dtype == torch.bool else output.shape[1]
            self.counts = self._fresh(torch.zeros(3, width, dtype=torch.int64, device=self.device))
        predicted, target = predicted.flatten().long(), target.flatten().long()
        ones = torch.ones_like(target)
        if self.ignore_index is not None:
            counted = target != self.ignore_index
            ones, target = counted.long(), target * counted
        # index_add_ rather than bincount, which waits for the device to learn the largest value.
        self.counts[0].index_add_(0, target, (predicted == target) * ones)
        self.counts[1].index_add_(0, predicted, ones)
        self.counts[2].index_add_(0, target, ones)

    def compute(self) -> Tensor:
        """F1, from 0 to 1."""
        if self.counts.shape[1] == 0:
            return self._scalar(float("nan"))
        right, predicted, actual = self.ratio(self.counts, 1)
        value = _AVERAGES[self.average](right, predicted, actual)
        return torch.where(actual.sum() > 0, value, float("nan"))

    def merge(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Add what other replicas saw; one that saw nothing may not know the number of classes."""
        for state in states:
            other = place(state["counts"], self.device)
            if self.counts.shape[1] == 0:
                self.counts = torch.zeros_like(other)
            if other.shape[1]:
                self.counts = self.counts + other


def _per_class(right: Tensor, predicted: Tensor, actual: Tensor) -> Tensor:
    # A class that occurs nowhere is 0 / 0; any denominator makes it 0, and no average counts it.
    return 2 * right / (predicted + actual).clamp(min=1)


def _macro(right: Tensor, predicted: Tensor, actual: Tensor) -> Tensor:
    seen = (predicted + actual) > 0
    return _per_class(right, predicted, actual).sum() / seen.sum()


def _weighted(right: Tensor, predicted: Tensor, actual: Tensor) -> Tensor:
    return (_per_class(right, predicted, actual) * actual).sum() / actual.sum()


def _micro(right: Tensor, predicted: Tensor, actual: Tensor) -> Tensor:
    return 2 * right.sum() / (predicted.sum() + actual.sum())


def _binary(right: Tensor, predicted: Tensor, actual: Tensor) -> Tensor:
    return _per_class(right, predicted, actual)[1]


_AVERAGES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "macro": _macro,
    "weighted": _weighted,
    "micro": _micro,
    "binary": _binary,
}
