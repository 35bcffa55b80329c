"""Learning-rate schedules: any torch scheduler on its clock, and curves over the steps of a run."""

from treadle.schedules.base import CLOCKS, GivenSchedule, Schedule, as_schedule
from treadle.schedules.bound import BoundSchedule, PlateauSchedule
from treadle.schedules.constant import Constant
from treadle.schedules.cosine import CosineDecay, CosineWithRestarts
from treadle.schedules.curve import Curve, CurveScheduler
from treadle.schedules.durations import Duration, Epochs, Fraction, Horizon, Steps
from treadle.schedules.function import Lambda
from treadle.schedules.linear import LinearDecay, WarmupStableDecay
from treadle.schedules.one_cycle import OneCycle
from treadle.schedules.polynomial import InverseSquareRootDecay, PolynomialDecay
from treadle.schedules.stairs import MultiStepDecay, StepDecay

__all__ = [
    "CLOCKS",
    "BoundSchedule",
    "Constant",
    "CosineDecay",
    "CosineWithRestarts",
    "Curve",
    "CurveScheduler",
    "Duration",
    "Epochs",
    "Fraction",
    "GivenSchedule",
    "Horizon",
    "InverseSquareRootDecay",
    "Lambda",
    "LinearDecay",
    "MultiStepDecay",
    "OneCycle",
    "PlateauSchedule",
    "PolynomialDecay",
    "Schedule",
    "StepDecay",
    "Steps",
    "WarmupStableDecay",
    "as_schedule",
]
