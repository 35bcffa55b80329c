"""Scores of classifiers: two classes, many classes, many labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from treadle.collecting import Results
from treadle.scores import figures
from treadle.scores.base import Scores, columns_of, torchmetrics
from treadle.scores.classes import class_columns, class_table, is_multilabel, per_class
from treadle.scores.curves import areas, curves, numbers, numbers_of

TINY = float(torch.finfo(torch.float64).eps)
IGNORED = -100
"""The target that `torch.nn.functional.cross_entropy` leaves out."""


class MulticlassScores(Scores):
    """One of several classes: accuracy, precision, recall, f1, matthews, auroc, average_precision, log_loss,
    calibration_error.

    Precision, recall and f1 are means over the classes that occur as target or prediction; a class that is
    never predicted rightly has 0. The areas are means over the classes that have both members and others
    among the targets (one against the rest), NaN where there is none. All that rests on probabilities is
    NaN where one of them is not finite.

    Attributes:
        names: of the classes.
    """

    kind: ClassVar[str] = "multi-class"
    default_headline: ClassVar[str | None] = "accuracy"

    def __init__(
        self, columns: Mapping[str, Any], *, names: Sequence[str] | None = None, **options: Any
    ) -> None:
        self.names = _checked_names(names, self._width(columns))
        super().__init__(columns, **options)

    def _width(self, columns: Mapping[str, Any]) -> int:
        return int(columns["probabilities"].shape[1])

    @property
    def confusion(self) -> Tensor:
        """Counts, int64, [classes, classes]: of true class i, how many were taken for class j."""
        size = len(self.names)
        return torch.bincount(
            self._columns["targets"] * size + self._columns["predictions"], minlength=size * size
        ).reshape(size, size)

    def per_class(self) -> dict[str, dict[str, float]]:
        """Precision, recall, f1 and support of every class by name."""
        counts = self.confusion.double()
        return per_class(self.names, counts.diag(), counts.sum(0), counts.sum(1))

    def compute(self) -> dict[str, float]:
        """The values; see the class."""
        functional, size = torchmetrics("classification"), len(self.names)
        probabilities, targets = self._columns["probabilities"], self._columns["targets"]
        decisions = self._columns["predictions"]
        seen = (self.confusion.sum(0) + self.confusion.sum(1)) > 0
        values = {
            "accuracy": (decisions == targets).double().mean(),
            **_means(self.per_class(), seen),
            "matthews": functional.multiclass_matthews_corrcoef(decisions, targets, size),
        }
        members = targets.unsqueeze(1) == torch.arange(size)
        scored = {
            **areas(probabilities, members),
            "log_loss": lambda: -probabilities.gather(1, targets.unsqueeze(1)).clamp(min=TINY).log().mean(),
            "calibration_error": lambda: functional.multiclass_calibration_error(
                probabilities, targets, size
            ),
        }
        return numbers(values) | numbers_of(scored, probabilities)

    def table(self) -> str:
        """The values, and precision, recall, f1 and support of every class."""
        return f"{super().table()}\n\n{class_table(self.per_class())}"

    def as_dict(self) -> dict[str, Any]:
        """What `to_json` writes: also every class and the confusion matrix."""
        return {**super().as_dict(), "classes": self.per_class(), "confusion": self.confusion.tolist()}

    def figure(self) -> Any:
        """The confusion matrix, and the ROC curve of every class against the rest."""
        left, right, figure = figures.pair()
        figures.confusion(left, self.confusion, self.names)
        figures.roc(right, self.roc())
        return figure

    def roc(self) -> dict[str, tuple[Tensor, Tensor]]:
        """For each class that has both members and others: false and true positive rate, two vectors."""
        members = self._columns["targets"].unsqueeze(1) == torch.arange(len(self.names))
        return curves(self._columns["probabilities"], members, self.names)


class BinaryScores(MulticlassScores):
    """Class 1 against class 0: accuracy, precision, recall, specificity, f1, matthews, auroc,
    average_precision, log_loss, calibration_error; precision, recall and f1 are those of class 1.
    """

    kind: ClassVar[str] = "binary"

    def _width(self, columns: Mapping[str, Any]) -> int:
        return 2

    def compute(self) -> dict[str, float]:
        """The values; see the class."""
        functional = torchmetrics("classification")
        probabilities, targets = self._columns["probabilities"], self._columns["targets"]
        decisions = self._columns["predictions"]
        other, own = self.per_class().values()
        values = {
            "accuracy": (decisions == targets).double().mean(),
            **{name: own[name] for name in ("precision", "recall", "f1")},
            "specificity": other["recall"],
            "matthews": functional.binary_matthews_corrcoef(decisions, targets),
        }
        of_target = torch.where(targets == 1, probabilities, 1 - probabilities)
        scored = {
            **areas(probabilities.unsqueeze(1), targets.unsqueeze(1) == 1),
            "log_loss": lambda: -of_target.clamp(min=TINY).log().mean(),
            "calibration_error": lambda: functional.binary_calibration_error(probabilities, targets),
        }
        return numbers(values) | numbers_of(scored, probabilities)

    def roc(self) -> dict[str, tuple[Tensor, Tensor]]:
        """The curve of class 1: false and true positive rate, two vectors; none without both classes."""
        members = self._columns["targets"].unsqueeze(1) == 1
        return curves(self._columns["probabilities"].unsqueeze(1), members, self.names[1:])


class MultilabelScores(MulticlassScores):
    """Several labels, each true or not: f1, f1_micro, precision, recall, exact_match, hamming_distance,
    auroc, average_precision; those without a suffix are means over labels.
    """

    kind: ClassVar[str] = "multi-label"
    default_headline: ClassVar[str | None] = "f1"

    @property
    def confusion(self) -> Tensor:
        """Counts, int64, [labels, 2, 2]: of each label, of truth i, how many were taken for j."""
        code = self._columns["targets"] * 2 + self._columns["predictions"]
        counts = [(code == value).sum(0) for value in range(4)]
        return torch.stack(counts, dim=1).reshape(-1, 2, 2)

    def per_class(self) -> dict[str, dict[str, float]]:
        """Precision, recall, f1 and support of every label by name."""
        counts = self.confusion.double()
        return per_class(self.names, counts[:, 1, 1], counts[:, :, 1].sum(1), counts[:, 1].sum(1))

    def compute(self) -> dict[str, float]:
        """The values; see the class."""
        decisions, targets = self._columns["predictions"], self._columns["targets"]
        probabilities = self._columns["probabilities"]
        right = decisions == targets
        chosen = int(decisions.sum()) + int(targets.sum())
        values = {
            **_means(self.per_class(), torch.ones(len(self.names), dtype=torch.bool)),
            "f1_micro": 2 * int((decisions * targets).sum()) / max(chosen, 1),
            "exact_match": right.all(1).double().mean(),
            "hamming_distance": (~right).double().mean(),
        }
        return numbers(values) | numbers_of(areas(probabilities, targets == 1), probabilities)

    def figure(self) -> Any:
        """Every label's four counts, and its ROC curve."""
        left, right, figure = figures.pair()
        figures.counts(left, self.confusion.reshape(-1, 4), self.names)
        figures.roc(right, self.roc())
        return figure

    def roc(self) -> dict[str, tuple[Tensor, Tensor]]:
        """For each label that is both true and false somewhere: false and true positive rate."""
        return curves(self._columns["probabilities"], self._columns["targets"] == 1, self.names)


def classification(
    results: Results | Sequence[Any],
    *,
    names: Sequence[str] | None = None,
    probabilities: bool = False,
    ignore_index: int = IGNORED,
    metrics: Mapping[str, Any] | None = None,
    headline: str | None = None,
    better: str | None = None,
) -> MulticlassScores:
    """Scores of a classifier, of the kind that the shapes say.

    Outputs [N], [N, 1] or [N, 2] with classes [N] of 0 and 1 are binary; [N, C, ...] with [N, ...]
    multi-class, every position of the further dimensions an item; [N, L] with 0s and 1s [N, L] multi-label.
    What was decided is `results.predictions` where that has the targets' shape.

    Args:
        results: what `Trainer.results` gave, or a pair (outputs, targets).
        names: of the classes or labels; their numbers where it is None.
        probabilities: whether the outputs are probabilities already; logits by default.
        ignore_index: targets of this value are left out, except in multi-label data.
        metrics, headline, better: see `Scores`. The headline is accuracy, or f1 for several labels.

    Raises:
        ValueError: the shapes do not fit each other, a target is no class, or nothing is left.
        TypeError: outputs or targets are no tensors.
    """
    given = columns_of(results)
    columns = class_columns(given, probabilities, ignore_index)
    kind: type[MulticlassScores] = MulticlassScores
    if is_multilabel(columns):
        kind = MultilabelScores
    elif columns["probabilities"].ndim == 1:
        kind = BinaryScores
    return kind(columns, names=names, metrics=metrics, headline=headline, better=better)


def _means(classes: Mapping[str, Mapping[str, float]], seen: Tensor) -> dict[str, float]:
    """Precision, recall and f1, each the mean over the classes that were seen."""
    rows = [row for row, counts in zip(classes.values(), seen.tolist(), strict=True) if counts]
    return {name: sum(row[name] for row in rows) / len(rows) for name in ("precision", "recall", "f1")}


def _checked_names(names: Sequence[str] | None, size: int) -> list[str]:
    if names is None:
        return [str(number) for number in range(size)]
    if isinstance(names, str) or len(names) != size:
        raise ValueError(f"scores: names is {names!r}; there are {size} classes, give a name for each")
    return [str(name) for name in names]
