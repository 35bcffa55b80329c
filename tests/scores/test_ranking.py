"""Rankings measured, query by query."""

# ruff: noqa: N802 - the capital letter is the row of the list of results that the test shows

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from sklearn import metrics as sk
from torch import Tensor, nn

import treadle
from treadle.scores import ranking

GENERATOR = torch.Generator().manual_seed(4)
SCORES = torch.randn(12, 8, generator=GENERATOR)
GAINS = torch.randint(0, 3, (12, 8), generator=GENERATOR) * (torch.rand(12, 8, generator=GENERATOR) > 0.4)
GAINS[3] = 0  # a query without a relevant document
QUERIES = torch.arange(12).repeat_interleave(8)


def kept() -> list[int]:
    return [query for query in range(12) if GAINS[query].sum()]


def expected(k: int) -> dict[str, float]:
    def mean(measure: Any) -> float:
        return sum(float(measure(SCORES[query], GAINS[query])) for query in kept()) / len(kept())

    def top(scores: Tensor, gains: Tensor) -> Tensor:
        return gains[scores.argsort(descending=True)][:k] > 0

    def first(scores: Tensor, gains: Tensor) -> float:
        return 1 / (1 + (gains[scores.argsort(descending=True)] > 0).int().argmax().item())

    return {
        f"ndcg@{k}": mean(lambda s, g: sk.ndcg_score(g.unsqueeze(0), s.unsqueeze(0), k=k)),
        "average_precision": mean(lambda s, g: sk.average_precision_score(g > 0, s)),
        "reciprocal_rank": mean(first),
        f"precision@{k}": mean(lambda s, g: top(s, g).sum() / k),
        f"recall@{k}": mean(lambda s, g: top(s, g).sum() / (g > 0).sum()),
        f"hit_rate@{k}": mean(lambda s, g: top(s, g).any()),
    }


@pytest.mark.parametrize("k", [1, 3, 10])
def test_C9_ranking(k: int) -> None:
    assert ranking((SCORES, GAINS), k=k).values == pytest.approx(expected(k), abs=1e-6)
    flat = ranking((SCORES.flatten().unsqueeze(1), GAINS.flatten()), QUERIES, k=k)
    assert flat.values == pytest.approx(expected(k), abs=1e-6)
    assert flat.queries == len(kept())


def test_queries_come_from_metadata_and_need_not_lie_together() -> None:
    class Search(treadle.SupervisedTask):
        def metadata(self, batch: Any) -> dict[str, Any]:
            return {"query": [f"query {number}" for number in batch["query"].tolist()]}

        def prepare_batch(self, batch: Any) -> tuple[Any, Any]:
            return batch["x"], batch["y"]

    order = torch.randperm(96, generator=torch.Generator().manual_seed(0))
    data = {"x": SCORES.flatten()[order].unsqueeze(1), "y": GAINS.flatten()[order], "query": QUERIES[order]}
    task = Search(nn.Identity(), lambda output, target: output.mean())
    results = treadle.Trainer(run_dir=None, progress=False).results(task, treadle.Loader(data, 10))
    scores = ranking(results, "query", k=3)
    assert scores.values == pytest.approx(expected(3), abs=1e-6)
    assert scores.as_dict()["queries"] == len(kept())
    with pytest.raises(ValueError, match="the metadata have query"):
        ranking(results, "question")


def test_C9_parts_add_up_and_a_query_may_be_in_both() -> None:
    scores, gains = SCORES.flatten(), GAINS.flatten()
    whole = ranking((scores, gains), QUERIES, k=3)
    cut = 44  # in the midst of query 5
    names = [f"query {number}" for number in QUERIES.tolist()]
    late = ranking((scores[cut:], gains[cut:]), names[cut:], k=3)
    early = ranking((scores[:cut], gains[:cut]), names[:cut], k=3)
    for joined in (early + late, late + early):
        assert joined.values == pytest.approx(whole.values)
        assert joined.queries == whole.queries
    rows = ranking((SCORES[:7], GAINS[:7]), k=3) + ranking((SCORES[7:], GAINS[7:]), k=3)
    assert rows.values == whole.values
    with pytest.raises(ValueError, match="with names cannot be added"):
        rows + early


def test_the_better_ranking_wins() -> None:
    best, noise = ranking((GAINS.double(), GAINS)), ranking((SCORES, GAINS))
    assert best.values["ndcg@10"] == pytest.approx(1)
    assert noise < best
    nothing = ranking((SCORES, GAINS * 0))
    assert all(math.isnan(value) for value in nothing.values.values())
    assert nothing < noise


def test_what_is_missing_is_said() -> None:
    with pytest.raises(ValueError, match=r"must be \[Q, D\]; give queries"):
        ranking((SCORES.flatten(), GAINS.flatten()))
    with pytest.raises(ValueError, match="96 scores, 96 targets and 12 queries"):
        ranking((SCORES.flatten(), GAINS.flatten()), list(range(12)))
    with pytest.raises(ValueError, match="k is 0"):
        ranking((SCORES, GAINS), k=0)
