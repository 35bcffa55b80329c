"""Scores: what `Trainer.results` found, measured, as values, a table, JSON and a picture.

    scores = treadle.scores.classification(trainer.results(task, test))
    scores.values["auroc"]; print(scores.table()); scores.to_json("scores.json")
    scores.figure().savefig("scores.png")
    best = max(scores_of_each_run)        # `<` compares by the headline: worse < better
    whole = scores_of_one_half + scores_of_the_other

Metrics are torchmetrics' (`pip install "treadle[metrics]"`), pictures matplotlib's
(`pip install "treadle[plots]"`); both are imported when they are needed.
"""

from treadle.scores.base import Scores, general
from treadle.scores.classification import (
    BinaryScores,
    MulticlassScores,
    MultilabelScores,
    classification,
)
from treadle.scores.ranking import RankingScores, ranking
from treadle.scores.regression import RegressionScores, regression

__all__ = [
    "BinaryScores",
    "MulticlassScores",
    "MultilabelScores",
    "RankingScores",
    "RegressionScores",
    "Scores",
    "classification",
    "general",
    "ranking",
    "regression",
]
