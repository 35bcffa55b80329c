"""The scikit-learn estimators: scikit-learn's own checks, and what it does not check."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("sklearn", "1.6", reason="scikit-learn 1.6 or newer is not installed")

from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import treadle
from treadle import TreadleClassifier, TreadleRegressor
from treadle.interop.sklearn import EXPECTED_FAILED_CHECKS

X, Y = load_iris(return_X_y=True)
FAST: dict[str, Any] = {"epochs": 15, "lr": 0.03, "device": "cpu"}
NOT_HERE = {
    "check_array_api_input": "SCIPY_ARRAY_API is not set",
    "check_sample_weights_pandas_series": "pandas is not installed",
    "check_classifier_data_not_an_array": "pandas is not installed",
    "check_regressor_data_not_an_array": "pandas is not installed",
}
"""Checks that scikit-learn itself skips where these are missing."""


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", [TreadleClassifier, TreadleRegressor])
def test_the_checks_of_scikit_learn(kind: Any, dtype: str) -> None:
    expected = EXPECTED_FAILED_CHECKS if dtype == "float32" else {}
    with warnings.catch_warnings():
        # scikit-learn warns of each check that it skips or that fails as expected; both are asserted below.
        warnings.simplefilter("ignore")
        results = check_estimator(
            kind(dtype=dtype, **FAST), on_fail=None, expected_failed_checks=dict(expected)
        )
    failed = {one["check_name"]: one["exception"] for one in results if one["status"] == "failed"}
    assert failed == {}
    assert {one["check_name"] for one in results if one["status"] == "xfail"} == set(expected)
    assert {one["check_name"] for one in results if one["status"] == "skipped"} <= set(NOT_HERE)
    assert sum(one["status"] == "passed" for one in results) > 50


def test_a_classifier_learns() -> None:
    model = make_pipeline(StandardScaler(), TreadleClassifier(random_state=0, **FAST))
    labels = np.array(["setosa", "versicolor", "virginica"])[Y]
    assert model.fit(X, labels).score(X, labels) > 0.95
    assert model.classes_.tolist() == ["setosa", "versicolor", "virginica"]
    chances = model.predict_proba(X)
    assert chances.shape == (150, 3)
    assert np.allclose(chances.sum(1), 1)
    assert (model.classes_[chances.argmax(1)] == model.predict(X)).all()
    history = model[-1].history_["train/loss"]
    assert len(history) == 15
    assert history[-1] < history[0] / 4


def test_a_regressor_learns_one_number_and_several() -> None:
    data, target = load_diabetes(return_X_y=True)
    data, target = StandardScaler().fit_transform(data), (target - target.mean()) / target.std()
    model = TreadleRegressor(random_state=0, **FAST).fit(data, target)
    assert model.score(data, target) > 0.5
    assert model.predict(data).shape == (442,)
    both = np.stack([target, -target], axis=1)
    assert TreadleRegressor(random_state=0, **FAST).fit(data, both).predict(data).shape == (442, 2)


def test_a_number_as_random_state_makes_the_fit_deterministic() -> None:
    def probabilities(state: Any) -> Any:
        return TreadleClassifier(random_state=state, **FAST).fit(X, Y).predict_proba(X)

    assert (probabilities(3) == probabilities(3)).all()
    assert (probabilities(3) != probabilities(4)).any()
    assert (probabilities(np.random.RandomState(1)) == probabilities(np.random.RandomState(1))).all()


def test_fitting_leaves_the_callers_generators_alone() -> None:
    def draws() -> tuple[float, float, float]:
        return random.random(), np.random.rand(), torch.rand(()).item()

    treadle.seed_all(1)
    expected = draws()
    treadle.seed_all(1)
    TreadleClassifier(random_state=0, **FAST).fit(X, Y).predict(X)
    assert draws() == expected


def test_nothing_is_written_or_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    TreadleClassifier(**FAST).fit(X, Y).predict(X)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    TreadleClassifier(trainer={"run_dir": tmp_path / "run"}, **FAST).fit(X, Y)
    assert treadle.Run.open(tmp_path / "run").status == "finished"


class Wide(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(inputs, 7), nn.Tanh(), nn.Linear(7, outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


def test_a_module_of_ones_own_and_a_search_over_it() -> None:
    search = GridSearchCV(TreadleClassifier(module=Wide, random_state=0, **FAST), {"lr": [1e-6, 0.05]}, cv=2)
    search.fit(StandardScaler().fit_transform(X), Y)
    assert search.best_params_ == {"lr": 0.05}
    assert isinstance(search.best_estimator_.module_, Wide)
    scores = cross_val_score(clone(search.best_estimator_), StandardScaler().fit_transform(X), Y, cv=3)
    assert scores.mean() > 0.9


def test_a_fitted_estimator_survives_pickle() -> None:
    model = TreadleClassifier(module=Wide, random_state=0, **FAST).fit(X, Y)
    copied = pickle.loads(pickle.dumps(model))
    assert (copied.predict_proba(X) == model.predict_proba(X)).all()
    for one in (model, copied):  # the optimizer's state too
        one.partial_fit(X, Y)
    assert (copied.predict_proba(X) == model.predict_proba(X)).all()


def test_partial_fit_goes_on() -> None:
    data = StandardScaler().fit_transform(X)
    model = TreadleClassifier(random_state=0, **FAST)
    with pytest.raises(ValueError, match="needs classes"):
        model.partial_fit(data[:75], Y[:75])
    for _ in range(15):
        model.partial_fit(data[:75], Y[:75], classes=[0, 1, 2])  # class 2 is in none of these
        model.partial_fit(data[75:], Y[75:])
    assert model.score(data, Y) > 0.9
    with pytest.raises(ValueError, match=r"\[3\] are not among classes \[0, 1, 2\]"):
        model.partial_fit(data[:2], [0, 3])
    regressor = TreadleRegressor(random_state=0, **FAST)
    losses = [regressor.partial_fit(data, data[:, 0]).history_["train/loss"][0] for _ in range(10)]
    assert losses[-1] < losses[0] / 5


@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_weights_weigh_exactly(scale: float) -> None:
    """A sample of weight 0 is not there, weights scale out, and a weight of 2 is a second copy."""
    weights = np.ones(150)
    weights[:50], weights[100:] = 0, 2
    options: dict[str, Any] = {"dtype": "float64", "batch_size": 300, "random_state": 0, **FAST}
    weighted = TreadleClassifier(**options).fit(X, Y, sample_weight=weights * scale)
    # Without class 0 there would be two outputs only; a weightless sample keeps it.
    keep = np.r_[0, 50:150, 100:150]
    repeated = TreadleClassifier(**options).fit(X[keep], Y[keep], sample_weight=np.r_[0, np.ones(150)])
    assert np.allclose(weighted.predict_proba(X), repeated.predict_proba(X), atol=1e-6)
    pieces = TreadleClassifier(**options, trainer={"microbatch_size": 40})  # some of them weigh nothing
    pieces.fit(X, Y, sample_weight=weights * scale)
    assert np.allclose(weighted.predict_proba(X), pieces.predict_proba(X), atol=1e-6)
    with pytest.raises(ValueError, match=r"0 for every sample|at least one non-zero"):
        TreadleClassifier(**options).fit(X, Y, sample_weight=weights * 0)


def test_importing_treadle_does_not_import_sklearn() -> None:
    code = "import sys, treadle, treadle.trainer, treadle.interop\nassert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_sklearn_is_named_with_what_to_install() -> None:
    code = "import sys; sys.modules['sklearn'] = None; import treadle; treadle.TreadleClassifier"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "need scikit-learn: pip install 'treadle[sklearn]'" in done.stderr.splitlines()[-1]


def test_a_wrong_argument_is_said() -> None:
    with pytest.raises(ValueError, match="dtype is 'half'; allowed are 'float32' and 'float64'"):
        TreadleClassifier(dtype="half").fit(X, Y)
    with pytest.raises(ValueError, match="trainer names 'max_epochs'; give the estimator epochs="):
        TreadleClassifier(trainer={"max_epochs": 3}, **FAST).fit(X, Y)


def test_options_of_the_trainer() -> None:
    """Among them a callback that stays with the estimator, and hears its predictions too."""
    average = treadle.callbacks.ExponentialMovingAverage(0.5)
    options = {"accumulate": 2, "microbatch_size": 10, "precision": "bf16", "callbacks": [average]}
    model = TreadleClassifier(trainer=options, random_state=0, **FAST)
    data = StandardScaler().fit_transform(X)
    assert model.fit(data, Y).score(data, Y) > 0.8
    assert (model.predict(data) == model.predict(data)).all()
