"""Metrics: accumulators that stay on the device and are weighted by items, never by batches."""

from treadle.metrics.adapters import as_metric
from treadle.metrics.base import Mean, Metric
from treadle.metrics.classification import F1, Accuracy, TopKAccuracy
from treadle.metrics.regression import MeanAbsoluteError, MeanSquaredError

__all__ = [
    "F1",
    "Accuracy",
    "Mean",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Metric",
    "TopKAccuracy",
    "as_metric",
]
