"""Under Ray's TorchTrainer: the same weights as on one process."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from tests.distributed.launching import MARKS, bounded

import treadle
from examples import ray_train

NO_RAY = importlib.util.find_spec("ray") is None
pytestmark = [*MARKS, pytest.mark.skipif(NO_RAY, reason="ray is not installed (pip install 'treadle[ray]')")]


def test_two_workers_agree_with_one_process(tmp_path: Path) -> None:
    folder = tmp_path / "ray"
    # A home of its own, for the token that Ray leaves there.
    command = [sys.executable, ray_train.__file__, "--run-dir", str(folder)]
    code, output, _ = bounded(command, HOME=str(tmp_path))
    assert code == 0, output[-4000:]
    assert "finished: val/accuracy 0.9" in output
    ray_train.train({"epochs": 3, "run_dir": str(tmp_path / "one")})
    both = [treadle.load_model(path, ray_train.network(), "last") for path in (folder, tmp_path / "one")]
    for one, other in zip(*(model.parameters() for model in both), strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-5)
