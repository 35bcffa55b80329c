"""Scores of orders: for each query, documents ranked by score."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from treadle.collecting import Results
from treadle.scores import figures
from treadle.scores.base import Scores, columns_of, tensor_of, torchmetrics

BINARY = {
    "average_precision": "retrieval_average_precision",
    "reciprocal_rank": "retrieval_reciprocal_rank",
    "precision": "retrieval_precision",
    "recall": "retrieval_recall",
    "hit_rate": "retrieval_hit_rate",
}


class RankingScores(Scores):
    """ndcg@k, precision@k, recall@k, hit_rate@k, average_precision and reciprocal_rank, means over queries.

    A document is relevant where its target is above 0; ndcg takes the target as its gain. Queries
    without a relevant document have no order to be right about and are left out; `queries` says how many
    count. All is NaN where none does, or where a score is not finite.

    Args:
        columns: "outputs", "targets" [documents] and "queries", [documents] of a number for each query.
        names: of the queries by number; None where the queries of two packages are never the same.
        k: the length of the list that is looked at.
        **options: see `Scores`.
    """

    kind: ClassVar[str] = "ranking"

    def __init__(
        self, columns: Mapping[str, Any], *, names: Sequence[Any] | None = None, k: int = 10, **options: Any
    ) -> None:
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise ValueError(f"scores: k is {k!r}; it must be a whole number from 1")
        self.k = k
        self._names = None if names is None else list(names)
        super().__init__(columns, **{**options, "headline": options.get("headline") or f"ndcg@{k}"})

    @property
    def queries(self) -> int:
        """How many queries count."""
        return len(self._groups())

    def compute(self) -> dict[str, float]:
        """The values; see the class."""
        functional, groups = torchmetrics("retrieval"), self._groups()
        found: dict[str, list[float]] = {f"ndcg@{self.k}": []}
        for name in BINARY:
            found[self._full(name)] = []
        finite = bool(self._columns["outputs"].isfinite().all())
        for scores, gains in groups if finite else []:
            ndcg = functional.retrieval_normalized_dcg(scores, gains, top_k=self.k)
            found[f"ndcg@{self.k}"].append(float(ndcg))
            for name, measure in BINARY.items():
                top_k = self.k if self._full(name) != name else None
                value = getattr(functional, measure)(scores, gains > 0, top_k=top_k)
                found[self._full(name)].append(float(value))
        return {name: math.fsum(each) / len(each) if each else math.nan for name, each in found.items()}

    def as_dict(self) -> dict[str, Any]:
        """What `to_json` writes: also how many queries count."""
        return {**super().as_dict(), "queries": self.queries}

    def figure(self) -> Any:
        """Mean precision and recall of the first 1, 2, ... k documents."""
        left, right, figure = figures.pair()
        functional = torchmetrics("retrieval")
        for axes, name in ((left, "precision"), (right, "recall")):
            measure = getattr(functional, f"retrieval_{name}")
            means = [
                sum(float(measure(scores, gains > 0, top_k=top)) for scores, gains in self._groups())
                / max(self.queries, 1)
                for top in range(1, self.k + 1)
            ]
            figures.by_length(axes, means, name)
        return figure

    def _full(self, name: str) -> str:
        return f"{name}@{self.k}" if name in ("precision", "recall", "hit_rate") else name

    def _groups(self) -> list[tuple[Tensor, Tensor]]:
        """Scores and gains of every query that has a relevant document.

        The scores are ranks from 1: torchmetrics takes a score up to 0 for a document that was not
        retrieved, and rounds to single precision. Ties stay ties.
        """
        order = torch.argsort(self._columns["queries"], stable=True)
        sizes = torch.bincount(self._columns["queries"])
        split = [self._columns[name][order].split(sizes.tolist()) for name in ("outputs", "targets")]
        return [
            (scores.unique(return_inverse=True)[1] + 1.0, gains)
            for scores, gains in zip(*split, strict=True)
            if bool((gains > 0).any())
        ]

    def _check_like(self, other: Scores, verb: str) -> None:
        super()._check_like(other, verb)
        if isinstance(other, RankingScores) and (self._names is None) != (other._names is None):
            raise ValueError(f"scores: queries with names cannot be {verb} queries without")

    def _joined(self, other: Scores) -> dict[str, Any]:
        """The columns of both; queries of one name are one query."""
        assert isinstance(other, RankingScores)
        theirs = other._columns["queries"]
        if self._names is None or other._names is None:
            theirs = theirs + int(self._columns["queries"].max()) + 1
        else:
            numbers = {name: number for number, name in enumerate(self._names)}
            own = torch.tensor([numbers.setdefault(name, len(numbers)) for name in other._names])
            theirs = own[theirs]
        joined = super()._joined(other)
        return {**joined, "queries": torch.cat([self._columns["queries"], theirs])}


def ranking(
    results: Results | Sequence[Any],
    queries: Any = None,
    *,
    k: int = 10,
    metrics: Mapping[str, Any] | None = None,
    headline: str | None = None,
    better: str | None = None,
) -> RankingScores:
    """Scores of rankings: outputs are scores, targets how relevant each document is (0: not at all).

    Args:
        results: what `Trainer.results` gave, or a pair (outputs, targets): a row for each document, [N] or
            [N, 1]; or a row for each query with a column for each of its documents, [Q, D].
        queries: which query each document is for: a name in `results.metadata`, or a tensor, array or list
            of numbers or strings. None for data [Q, D].
        k: the length of the list that is looked at.
        metrics, headline, better: see `Scores`. The headline is ndcg@k.

    Raises:
        ValueError: shapes do not fit each other, or `queries` is missing or unknown.
        TypeError: outputs or targets are no tensors.
    """
    given = columns_of(results)
    outputs, targets = tensor_of(given, "outputs").double(), tensor_of(given, "targets")
    if isinstance(queries, str):
        metadata = results.metadata if isinstance(results, Results) else {}
        if queries not in metadata:
            raise ValueError(
                f"scores: queries is {queries!r}; the metadata have {', '.join(metadata) or 'nothing'} "
                "(Task.metadata says what is kept)"
            )
        queries = metadata[queries]
    names: list[Any] | None = None
    if queries is None:
        if outputs.ndim != 2 or outputs.shape != targets.shape or outputs.shape[1] < 2:
            raise ValueError(
                f"scores: outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)} without queries "
                "must be [Q, D]; give queries, the query of each document"
            )
        numbers = torch.arange(len(outputs)).repeat_interleave(outputs.shape[1])
    else:
        keys = queries.tolist() if hasattr(queries, "tolist") else list(queries)
        known: dict[Any, int] = {}
        numbers = torch.tensor([known.setdefault(key, len(known)) for key in keys], dtype=torch.int64)
        names = list(known)
    outputs, targets = outputs.reshape(-1), targets.reshape(-1)
    if not len(outputs) == len(targets) == len(numbers) or not len(numbers):
        raise ValueError(
            f"scores: there are {len(outputs)} scores, {len(targets)} targets and {len(numbers)} queries; "
            "give one of each for every document"
        )
    columns = {"outputs": outputs, "predictions": outputs, "targets": targets, "queries": numbers}
    return RankingScores(columns, names=names, k=k, metrics=metrics, headline=headline, better=better)
