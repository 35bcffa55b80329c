"""What all scores have: values, a headline to compare by, addition, a table, JSON."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor

from treadle.collecting import Results
from treadle.data import concatenate
from treadle.optional import optional
from treadle.runs.files import write_json
from treadle.scores.own import checked_metrics, measure

DIRECTIONS = ("higher", "lower")
LOWER = frozenset(
    (
        *("loss", "log_loss", "hamming_distance", "calibration_error", "mean_squared_error", "max_error"),
        *("mse", "rmse", "mae", "mean_absolute_error", "error", "wer", "cer", "perplexity"),
    )
)
"""Names of values of which less is better."""


class Scores:
    """Values over data, with what they were computed from. Base class: metrics of your own and nothing else.

    `a < b` says that a is worse than b by the headline, so `max(several)` is the best; NaN is worse than
    any number. `a + b`, for data that share no sample, is computed anew from all the data of both, so it is
    what one evaluation over the union would have given. Adding packages to 0 leaves them, so `sum` works.

    Args:
        columns: what is measured, as trees with a row for each sample: "outputs", "predictions", "targets".
        metrics: further metrics by name: treadle's, torchmetrics' or torcheval's metrics and functions of
            (output, target), which get all outputs and targets at once; or Hugging Face `evaluate` modules,
            which get predictions and references as lists.
        headline: the value to compare by; the only one where there is one.
        better: "higher" or "lower", where the headline is a metric of your own.

    Attributes:
        values: every value by name; NaN where it is not defined, such as an AUROC over one class.
        samples: how many samples they are over.

    Raises:
        ValueError: the headline is no value, or nobody said which way it is better.
        TypeError: a metric is none of these.
    """

    kind: ClassVar[str] = "general"
    default_headline: ClassVar[str | None] = None

    def __init__(
        self,
        columns: Mapping[str, Any],
        *,
        metrics: Mapping[str, Any] | None = None,
        headline: str | None = None,
        better: str | None = None,
    ) -> None:
        if better is not None and better not in DIRECTIONS:
            raise ValueError(f"scores: better is {better!r}; allowed are 'higher', 'lower' and None")
        self._columns = dict(columns)
        self._metrics = checked_metrics(metrics or {})
        self.values: dict[str, float] = {}
        self._evaluate()
        self.headline = self._checked_headline(headline or self.default_headline)
        self.higher_is_better = self._direction(better)

    @property
    def samples(self) -> int:
        """How many samples the values are over."""
        return len(self._columns["targets"])

    @property
    def score(self) -> float:
        """The value of the headline."""
        return self.values[self.headline]

    def compute(self) -> dict[str, float]:
        """The values that this kind of scores brings itself."""
        return {}

    def table(self) -> str:
        """The values as text, a line each; the headline first, marked with a star."""
        names = sorted(self.values, key=lambda name: name != self.headline)
        width = max(map(len, names)) + 2
        head = f"{self.kind} scores of {self.samples} samples"
        marks = ["*" if name == self.headline else " " for name in names]
        lines = [
            f"{mark} {name:{width}}{self.values[name]:.6g}" for mark, name in zip(marks, names, strict=True)
        ]
        return "\n".join([head, *lines])

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write the values as strict JSON, whole or not at all; NaN is {"$float": "nan"}."""
        write_json(Path(path), self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """What `to_json` writes."""
        return {
            "kind": self.kind,
            "samples": self.samples,
            "headline": self.headline,
            "better": DIRECTIONS[not self.higher_is_better],
            "values": dict(self.values),
        }

    def figure(self) -> Any:
        """A matplotlib `Figure` of this kind of scores.

        Raises:
            NotImplementedError: this kind has no picture.
            ImportError: matplotlib is not installed.
        """
        raise NotImplementedError(f"{type(self).__name__} has no picture")

    def __add__(self, other: object) -> Self:
        if not isinstance(other, Scores):
            return NotImplemented
        self._check_like(other, "added to")
        if other is self:
            raise ValueError("scores: added to themselves; add scores of data that share no sample")
        joined = copy.copy(self)
        joined._columns = self._joined(other)
        joined._evaluate()
        return joined

    def __radd__(self, other: object) -> Self:
        return self if other == 0 else NotImplemented

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, Scores):
            return NotImplemented
        self._check_like(other, "compared with")
        return self._rank() < other._rank()

    def __gt__(self, other: object) -> bool:
        return NotImplemented if not isinstance(other, Scores) else other < self

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.headline}={self.score:.6g} of {self.samples} samples>"

    def _evaluate(self) -> None:
        own = self.compute()
        self._own = frozenset(own)
        self.values = own | measure(self._metrics, self._columns, own)

    def _joined(self, other: Scores) -> dict[str, Any]:
        joined: dict[str, Any] = concatenate([self._columns, other._columns])
        return joined

    def _rank(self) -> float:
        return -math.inf if math.isnan(self.score) else self.score if self.higher_is_better else -self.score

    def _check_like(self, other: Scores, verb: str) -> None:
        mine, theirs = (
            f"{one.kind} scores with the headline {one.headline!r} ({DIRECTIONS[not one.higher_is_better]})"
            for one in (self, other)
        )
        if mine != theirs or self.values.keys() != other.values.keys():
            raise ValueError(f"scores: {mine} cannot be {verb} {theirs} or with other values")

    def _checked_headline(self, headline: str | None) -> str:
        if not self.values:
            raise ValueError("scores: there is nothing to measure; give metrics={name: metric}")
        if headline is None and len(self.values) == 1:
            return next(iter(self.values))
        if headline not in self.values:
            raise ValueError(f"scores: headline is {headline!r}; allowed are {', '.join(self.values)}")
        return headline

    def _direction(self, better: str | None) -> bool:
        if better is not None:
            return better == "higher"
        if self.headline in LOWER:
            return False
        declared = getattr(self._metrics.get(self.headline), "higher_is_better", None)
        if declared is None and self.headline not in self._own:
            raise ValueError(f"scores: is {self.headline!r} better 'higher' or 'lower'? Say better=...")
        return True if declared is None else bool(declared)


def general(
    results: Results | Sequence[Any],
    metrics: Mapping[str, Any],
    *,
    headline: str | None = None,
    better: str | None = None,
) -> Scores:
    """Scores of any outputs and targets by metrics of your own.

    Args:
        results: what `Trainer.results` gave, or a pair (outputs, targets).
        metrics, headline, better: see `Scores`.

    Raises:
        ValueError, TypeError: see `Scores`.
    """
    return Scores(columns_of(results), metrics=metrics, headline=headline, better=better)


def columns_of(results: Results | Sequence[Any]) -> dict[str, Any]:
    """Outputs, predictions and targets of results, or of a pair (outputs, targets).

    Raises:
        TypeError: it is neither.
        ValueError: there are no targets.
    """
    if isinstance(results, Results):
        outputs, predictions, targets = results.outputs, results.predictions, results.targets
    elif isinstance(results, Sequence) and len(results) == 2:
        outputs, targets = results
        predictions = outputs
    else:
        raise TypeError(
            f"scores: {type(results).__name__} is not what trainer.results(...) gives, nor (outputs, targets)"
        )
    if targets is None:
        raise ValueError("scores: the data had no targets, so there is nothing to compare with")
    return {"outputs": outputs, "predictions": predictions, "targets": targets}


def tensor_of(columns: Mapping[str, Any], name: str) -> Tensor:
    """A column that must be a tensor, in CPU memory.

    Raises:
        TypeError: it is something else.
    """
    value = columns[name]
    if not isinstance(value, Tensor):
        raise TypeError(
            f"scores: the {name} are {type(value).__name__}, not a tensor; use scores.general with metrics "
            "of your own, or choose the tensor: (outputs, targets)"
        )
    return value.detach().cpu()


def torchmetrics(name: str) -> Any:
    """A module of `torchmetrics.functional`, imported now.

    Raises:
        ImportError: torchmetrics is not installed.
    """
    return optional(f"torchmetrics.functional.{name}", "scores", "metrics")
