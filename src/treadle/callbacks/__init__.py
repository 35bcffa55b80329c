"""What happens around the math: one callback per file."""

from treadle.callbacks.activation_statistics import ActivationStatistics
from treadle.callbacks.best_weights import BestWeights
from treadle.callbacks.callback_list import CallbackList
from treadle.callbacks.checkpoints import Checkpoints
from treadle.callbacks.device_augmentation import DeviceAugmentation
from treadle.callbacks.early_stopping import EarlyStopping
from treadle.callbacks.email_notification import EmailNotification
from treadle.callbacks.exponential_moving_average import ExponentialMovingAverage
from treadle.callbacks.fingerprints import Fingerprints
from treadle.callbacks.freezing import Freezing
from treadle.callbacks.function_every import FunctionEvery
from treadle.callbacks.gradient_distribution import GradientDistribution
from treadle.callbacks.gradient_statistics import GradientStatistics
from treadle.callbacks.history_insertion import HistoryInsertion
from treadle.callbacks.identical_predictions import IdenticalPredictions
from treadle.callbacks.layer_table import Row, parameter_table
from treadle.callbacks.learning_rate_monitor import LearningRateMonitor
from treadle.callbacks.messages import Messages
from treadle.callbacks.metric_rename import MetricRename
from treadle.callbacks.monitor import Monitor
from treadle.callbacks.non_finite import NonFinitePolicy
from treadle.callbacks.notification import Notification
from treadle.callbacks.progress import Progress, progress_bar
from treadle.callbacks.result_picture import ResultPicture
from treadle.callbacks.step_times import StepTimes
from treadle.callbacks.stochastic_weight_averaging import StochasticWeightAveraging
from treadle.callbacks.summary import Summary
from treadle.callbacks.threshold_stopping import ThresholdStopping
from treadle.callbacks.throughput import Throughput
from treadle.callbacks.time_limit import TimeLimit
from treadle.callbacks.trial import Trial
from treadle.callbacks.webhook_notification import WebhookNotification
from treadle.callbacks.weight_averaging import WeightAveraging

__all__ = [
    "ActivationStatistics",
    "BestWeights",
    "CallbackList",
    "Checkpoints",
    "DeviceAugmentation",
    "EarlyStopping",
    "EmailNotification",
    "ExponentialMovingAverage",
    "Fingerprints",
    "Freezing",
    "FunctionEvery",
    "GradientDistribution",
    "GradientStatistics",
    "HistoryInsertion",
    "IdenticalPredictions",
    "LearningRateMonitor",
    "Messages",
    "MetricRename",
    "Monitor",
    "NonFinitePolicy",
    "Notification",
    "Progress",
    "ResultPicture",
    "Row",
    "StepTimes",
    "StochasticWeightAveraging",
    "Summary",
    "ThresholdStopping",
    "Throughput",
    "TimeLimit",
    "Trial",
    "WebhookNotification",
    "WeightAveraging",
    "parameter_table",
    "progress_bar",
]
