"""What MLflow's own store holds, in SQLite and without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.loggers.training import MEDIA, cut_and_resumed, expected, train

from treadle.loggers import MLflowLogger
from treadle.loggers.mlflow import _safe

pytest.importorskip("mlflow", reason="mlflow is not installed: pip install 'treadle[mlflow]'")
pytest.importorskip("sqlalchemy", reason="mlflow is installed without sqlalchemy")
pytestmark = pytest.mark.filterwarnings("ignore")  # its own imports warn of what is to come in others


def points(client: Any, identity: str) -> list[tuple[tuple[str, int], float]]:
    names = client.get_run(identity).data.metrics
    history = [metric for name in names for metric in client.get_metric_history(identity, name)]
    return [((metric.key, metric.step), metric.value) for metric in history]


@pytest.mark.slow
def test_everything_is_there_once(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    make = lambda: MLflowLogger(timeout=60)  # noqa: E731
    runs = [train(tmp_path / "whole", [make()]), cut_and_resumed(tmp_path / "cut", make)]
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("treadle")
    found = client.search_runs([experiment.experiment_id])
    assert {one.data.tags["treadle.run"] for one in found} == {run.id for run in runs}
    for run in runs:
        (one,) = (one for one in found if one.data.tags["treadle.run"] == run.id)
        values = points(client, one.info.run_id)
        assert len(values) == len(dict(values))
        assert dict(values) == expected(run)
        assert (one.info.status, one.info.run_name) == ("FINISHED", run.name)
        assert one.data.params["optimizer"] == "SGD"
        for folder, end in (("pictures", "png"), ("texts", "txt"), ("histograms", "json")):
            files = [file.path for file in client.list_artifacts(one.info.run_id, f"{folder}/train")]
            assert len(files) == len(MEDIA)
            assert all(file.endswith(f".{end}") for file in files)
        place = client.download_artifacts(one.info.run_id, "texts/train/remark-00000004.txt", str(tmp_path))
        assert Path(place).read_text() == "<b>step</b> 4"


def test_names_become_such_as_are_allowed() -> None:
    assert _safe("train/loss") == "train/loss"
    assert _safe("../../etc/passwd") == "_/_/etc/passwd"
    assert _safe("<script>é\n") == "_script___"
    assert _safe("") == "_"
