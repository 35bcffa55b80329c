"""What a run measures, for others to show: one sink per file. No package is imported before it is used."""

from treadle.loggers.base import Begin, Logger
from treadle.loggers.csv_file import CSVLogger
from treadle.loggers.json_lines import JSONLinesLogger
from treadle.loggers.mlflow import MLflowLogger
from treadle.loggers.tensorboard import TensorBoardLogger
from treadle.loggers.trackio import TrackioLogger
from treadle.loggers.wandb import WandbLogger

__all__ = [
    "Begin",
    "CSVLogger",
    "JSONLinesLogger",
    "Logger",
    "MLflowLogger",
    "TensorBoardLogger",
    "TrackioLogger",
    "WandbLogger",
]
