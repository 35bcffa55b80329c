"""A small configuration in an empty folder, and a run of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from treadle.cli.main import main

SMALL = """
seed: 1
task:
  class_path: treadle.SupervisedTask
  init_args:
    model:
      class_path: torch.nn.Sequential
      args:
        - {class_path: torch.nn.Linear, init_args: {in_features: 64, out_features: 16}}
        - {class_path: torch.nn.Dropout}
        - {class_path: torch.nn.Linear, init_args: {in_features: 16, out_features: 10}}
    loss: torch.nn.functional.cross_entropy
    lr: 1e-2
    metrics: {accuracy: {class_path: treadle.metrics.Accuracy}}
data:
  train:
    class_path: treadle.Loader
    init_args: {dataset: {class_path: treadle.data.Digits}, batch_size: 256, shuffle: true}
  val:
    class_path: treadle.Loader
    init_args: {dataset: {class_path: treadle.data.Digits, init_args: {split: val}}, batch_size: 256}
trainer:
  max_epochs: 2
  run_dir: runs/small
  progress: false
  checkpoint: {monitor: val/accuracy, mode: max, background: false}
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration, in the current folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


@pytest.fixture
def fitted(small: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The folder of a finished run of it."""
    assert main(["fit", str(small)]) == 0
    capsys.readouterr()
    return small.parent / "runs" / "small"
