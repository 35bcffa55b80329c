"""Numbers that come close, measured: the same as scikit-learn's and SciPy's, whole or in parts."""

# ruff: noqa: N802 - the capital letter is the row of the list of results that the test shows

from __future__ import annotations

import math
import warnings

import pytest
import torch
from scipy import stats
from sklearn import metrics as sk
from torch import nn
from torch.nn.functional import mse_loss

import treadle
from treadle.scores import regression

X = torch.randn(30, 2, generator=torch.Generator().manual_seed(2)).double()
Y = X[:, 0] * 2 + torch.randn(30, generator=torch.Generator().manual_seed(3)) + 5


@pytest.mark.parametrize("column", [False, True])
def test_C9_regression(column: bool) -> None:
    predictions = X[:, 0] + 5
    scores = regression((predictions.unsqueeze(1) if column else predictions, Y))
    assert scores.values == pytest.approx(
        {
            "rmse": sk.root_mean_squared_error(Y, predictions),
            "mse": sk.mean_squared_error(Y, predictions),
            "mae": sk.mean_absolute_error(Y, predictions),
            "max_error": sk.max_error(Y, predictions),
            "r2": sk.r2_score(Y, predictions),
            "explained_variance": sk.explained_variance_score(Y, predictions),
            "pearson": stats.pearsonr(Y, predictions).statistic,
            "spearman": stats.spearmanr(Y, predictions).statistic,
        },
        abs=1e-6,
    )


def test_several_outputs_are_averaged() -> None:
    truth = torch.stack([Y, -3 * Y], dim=1)
    values = regression((X, truth)).values
    assert values["r2"] == pytest.approx(sk.r2_score(truth, X))
    assert values["mae"] == pytest.approx(sk.mean_absolute_error(truth, X))
    assert values["rmse"] == pytest.approx(sk.root_mean_squared_error(truth, X))
    parts = [regression((X[:, k], truth[:, k])).values["pearson"] for k in range(2)]
    assert values["pearson"] == pytest.approx(sum(parts) / 2)


def test_C9_parts_add_up_and_less_error_is_better() -> None:
    whole, first, second = (
        regression((X[part, 0] + 5, Y[part])) for part in (slice(None), slice(11), slice(11, None))
    )
    assert (first + second).values == whole.values
    assert sum([first, second]).samples == 30  # type: ignore[attr-defined]
    worse = regression((X[:, 0], Y))
    assert worse.score > whole.score
    assert worse < whole
    by_r2 = [regression((X[:, 0] + shift, Y), headline="r2") for shift in (0, 5)]
    assert by_r2[0] < by_r2[1]


def test_values_that_are_not_defined_are_nan_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        constant = regression((torch.ones(4), torch.tensor([1.0, 2.0, 3.0, 4.0]))).values
        one = regression((torch.ones(1), torch.zeros(1))).values
        broken = regression((torch.tensor([1.0, math.inf]), torch.ones(2))).values
    assert math.isnan(constant["pearson"])
    assert constant["r2"] == pytest.approx(-1.8)
    assert (one["rmse"], math.isnan(one["r2"])) == (1.0, True)
    assert all(math.isnan(value) for value in broken.values())


def test_from_the_results_of_a_trainer() -> None:
    torch.manual_seed(0)
    task = treadle.SupervisedTask(nn.Linear(2, 1), mse_loss)
    trainer = treadle.Trainer(run_dir=None, progress=False)
    results = trainer.results(task, (X.float(), Y.float().unsqueeze(1)))
    scores = regression(results)
    assert scores.values["mse"] == pytest.approx(results.values["test/loss"], rel=1e-5)
    assert repr(scores).startswith("<RegressionScores rmse=")


def test_shapes_must_fit() -> None:
    with pytest.raises(ValueError, match=r"shape \(30, 2\) and the targets \(30,\)"):
        regression((X, Y))
    with pytest.raises(ValueError, match="not empty"):
        regression((X[:0], X[:0]))
