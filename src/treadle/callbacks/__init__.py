"""What happens around the math: one callback per file."""

from treadle.callbacks.activation_statistics import ActivationStatistics
from treadle.callbacks.checkpoints import Checkpoints
from treadle.callbacks.early_stopping import EarlyStopping
from treadle.callbacks.exponential_moving_average import ExponentialMovingAverage
from treadle.callbacks.fingerprints import Fingerprints
from treadle.callbacks.function_every import FunctionEvery
from treadle.callbacks.gradient_distribution import GradientDistribution
from treadle.callbacks.gradient_statistics import GradientStatistics
from treadle.callbacks.history_insertion import HistoryInsertion
from treadle.callbacks.identical_predictions import IdenticalPredictions
from treadle.callbacks.layer_table import Row, parameter_table
from treadle.callbacks.learning_rate_monitor import LearningRateMonitor
from treadle.callbacks.metric_rename import MetricRename
from treadle.callbacks.monitor import Monitor
from treadle.callbacks.non_finite import NonFinitePolicy
from treadle.callbacks.progress import Progress, progress_bar
from treadle.callbacks.stochastic_weight_averaging import StochasticWeightAveraging
from treadle.callbacks.summary import Summary
from treadle.callbacks.threshold_stopping import ThresholdStopping
from treadle.callbacks.throughput import Throughput
from treadle.callbacks.weight_averaging import WeightAveraging

__all__ = [
    "ActivationStatistics",
    "Checkpoints",
    "EarlyStopping",
    "ExponentialMovingAverage",
    "Fingerprints",
    "FunctionEvery",
    "GradientDistribution",
    "GradientStatistics",
    "HistoryInsertion",
    "IdenticalPredictions",
    "LearningRateMonitor",
    "MetricRename",
    "Monitor",
    "NonFinitePolicy",
    "Progress",
    "Row",
    "StochasticWeightAveraging",
    "Summary",
    "ThresholdStopping",
    "Throughput",
    "WeightAveraging",
    "parameter_table",
    "progress_bar",
]
