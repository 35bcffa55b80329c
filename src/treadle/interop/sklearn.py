"""scikit-learn estimators that are trained by Treadle.

    model = make_pipeline(StandardScaler(), treadle.TreadleClassifier(epochs=20, random_state=0))
    model.fit(X, y).score(X_test, y_test)

They work in pipelines, searches and cross-validation, and pass scikit-learn's own `check_estimator`: with
dtype="float64" all of it, with "float32" all but `EXPECTED_FAILED_CHECKS`.
"""

from __future__ import annotations

from treadle.optional import missing

try:
    from treadle.interop.classifier import TreadleClassifier
    from treadle.interop.estimator import TreadleEstimator
    from treadle.interop.regressor import TreadleRegressor
except ImportError as error:
    raise missing("sklearn", "TreadleClassifier and TreadleRegressor", "sklearn", error) from error

__all__ = ["EXPECTED_FAILED_CHECKS", "TreadleClassifier", "TreadleEstimator", "TreadleRegressor"]

EXPECTED_FAILED_CHECKS = {
    "check_sample_weight_equivalence_on_dense_data": (
        "a weight of 2 and a repeated sample give the same gradient up to rounding, which the check wants "
        "equal to 1e-7: true in float64, not in float32"
    ),
}
"""What `check_estimator(..., expected_failed_checks=...)` is told for estimators in float32, and why.

The check has fewer samples than a batch. With more, shuffled batches of repeated samples are other batches.
"""
