"""The record of runs on disk, and questions over it. Needs no torch."""

from treadle.runs.chunks import Buckets, Series
from treadle.runs.compare import Difference, Parting, compare
from treadle.runs.environment import collect_environment
from treadle.runs.errors import RunError
from treadle.runs.export import export_csv, read_csv
from treadle.runs.folders import free_path, newest_of
from treadle.runs.history import Duration, History
from treadle.runs.listing import Runs, find, list_runs
from treadle.runs.media import Medium
from treadle.runs.record import Run
from treadle.runs.store import Clock, Event

__all__ = [
    "Buckets",
    "Clock",
    "Difference",
    "Duration",
    "Event",
    "History",
    "Medium",
    "Parting",
    "Run",
    "RunError",
    "Runs",
    "Series",
    "collect_environment",
    "compare",
    "export_csv",
    "find",
    "free_path",
    "list_runs",
    "newest_of",
    "read_csv",
]
