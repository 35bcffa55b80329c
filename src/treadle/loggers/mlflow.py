"""Everything as MLflow keeps it."""

from __future__ import annotations

import importlib
import json
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from treadle.log import Point
from treadle.loggers.base import Begin, Logger
from treadle.loggers.ledger import Ledger

_AT_ONCE = 1000  # metrics in one call; MLflow takes no more
_PARAMETERS = 100  # parameters in one call
_ENDS = {"finished": "FINISHED", "stopped": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
_TAG = "treadle.run"


class MLflowLogger(Logger):
    """Log to MLflow: by default to `mlflow.db` beside the run's folder, without a server.

    Values are metrics and settings parameters; texts, pictures and histograms (as JSON) are artifacts. A run
    that goes on goes on as the same run of MLflow, found by its tag "treadle.run"; of what it repeats
    nothing is logged again. MLflow's own global state is left alone. Look with
    `mlflow ui --backend-store-uri sqlite:///runs/mlflow.db`.

    Args:
        tracking_uri: another store or a server.
        experiment: MLflow's name for runs that belong together; made where there is none.
        options: see `Logger`.
    """

    package = "mlflow"

    def __init__(self, tracking_uri: str | None = None, experiment: str = "treadle", **options: Any) -> None:
        super().__init__(**options)
        self.tracking_uri = tracking_uri
        self.experiment = experiment
        self._client: Any = None
        self._run = ""
        self._ledger = Ledger(None)

    def check(self, begin: Begin) -> None:
        """The run must be somewhere."""
        if self.tracking_uri is None and begin.folder is None:
            raise ValueError("MLflowLogger: the run is in memory: give a tracking_uri")

    def open(self, begin: Begin) -> None:
        """Find the run, or make it."""
        module = importlib.import_module("mlflow")
        places = {}
        uri = self.tracking_uri
        if uri is None:
            assert begin.folder is not None
            uri = f"sqlite:///{begin.folder.parent / 'mlflow.db'}"
            places = {"artifact_location": (begin.folder.parent / "mlflow-artifacts").as_uri()}
        self._client = client = module.MlflowClient(tracking_uri=uri)
        found = client.get_experiment_by_name(self.experiment)
        number = client.create_experiment(self.experiment, **places) if found is None else found.experiment_id
        runs = client.search_runs([number], f"tags.`{_TAG}` = '{begin.id}'")
        if runs:
            self._run = runs[0].info.run_id
            client.update_run(self._run, status="RUNNING")
            known = {name: self._last_step(name) for name in runs[0].data.metrics}
            self._ledger = Ledger(None, known)
            return
        self._run = client.create_run(number, run_name=begin.name, tags={_TAG: begin.id}).info.run_id
        self._ledger = Ledger(None)
        parameters = [
            module.entities.Param(_safe(name), str(value)) for name, value in begin.hyperparameters.items()
        ]
        for start in range(0, len(parameters), _PARAMETERS):
            client.log_batch(self._run, params=parameters[start : start + _PARAMETERS])

    def write_points(self, points: Sequence[Point]) -> None:
        """A metric each."""
        entity = importlib.import_module("mlflow.entities").Metric
        now = int(time.time() * 1000)
        fresh = self._ledger.fresh((_safe(name), step, value) for name, step, value in points)
        for start in range(0, len(fresh), _AT_ONCE):
            part = fresh[start : start + _AT_ONCE]
            metrics = [entity(name, value, now, step) for name, step, value in part]
            self._client.log_batch(self._run, metrics=metrics)
            self._ledger.note(part)

    def write_text(self, name: str, step: int, text: str) -> None:
        """A file of its name and step: what is repeated replaces it."""
        self._client.log_text(self._run, text, f"texts/{_safe(name)}-{step:08d}.txt")

    def write_histogram(self, name: str, step: int, edges: list[float], counts: list[int]) -> None:
        """The numbers as JSON: MLflow has no histograms."""
        text = json.dumps({"edges": edges, "counts": counts})
        self._client.log_text(self._run, text, f"histograms/{_safe(name)}-{step:08d}.json")

    def write_picture(self, name: str, step: int, png: bytes) -> None:
        """The file as it is."""
        with tempfile.TemporaryDirectory() as scratch:
            *folders, last = f"pictures/{_safe(name)}-{step:08d}.png".split("/")
            path = Path(scratch) / last
            path.write_bytes(png)
            self._client.log_artifact(self._run, str(path), "/".join(folders))

    def close(self, status: str) -> None:
        """Say how it ended."""
        self._client.set_terminated(self._run, _ENDS.get(status, "FINISHED"))

    def _last_step(self, name: str) -> int:
        return max(int(metric.step) for metric in self._client.get_metric_history(self._run, name))


def _safe(name: str) -> str:
    """Only what MLflow allows in names, which may not leave their folder either."""
    return re.sub(r"[^\w\-. :/]", "_", re.sub(r"\.\.+", "_", name), flags=re.ASCII).strip("/")[:240] or "_"
