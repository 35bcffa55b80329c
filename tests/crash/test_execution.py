"""A run that goes on with another execution than before: other workers, another micro-batch size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.crash.client import Server
from tests.crash.program import Setting, differences, record_of
from tests.crash.test_deaths import until_step

from treadle.checkpoint import newest
from treadle.runs import Run


def go_on_with(server: Server, setting: Setting, folder: Path, changes: list[dict[str, Any]]) -> None:
    """Kill it every few steps and go on with the next change."""
    for number, change in enumerate(changes[:-1]):
        training = server.start(replace(setting, **change), folder)
        until_step(training, folder, 5 * number + 4)
        training.kill(0.0)
    server.start(replace(setting, **changes[-1]), folder).finish()


@pytest.mark.parametrize("stream", [False, True])
def test_another_number_of_workers_changes_no_bit(server: Server, tmp_path: Path, stream: bool) -> None:
    setting = Setting(
        epochs=4, dropout=0.3, augment=True, accumulate=2, samples=60, averaging=True, stream=stream
    )
    changes = [{"workers": count} for count in (0, 2, 1, 3, 0)]
    if stream:  # a state is kept without workers only
        changes = [{"workers": count} for count in (2, 1, 3, 2)]
        setting = replace(setting, workers=1)
    server.start(setting, tmp_path / "whole").finish()
    go_on_with(server, setting, tmp_path / "changed", changes)
    assert differences(record_of(tmp_path / "whole"), record_of(tmp_path / "changed")) == []


def test_another_micro_batch_size_changes_the_order_of_additions_only(server: Server, tmp_path: Path) -> None:
    """The samples of a step are the same to the bit; losses and weights within rounding."""
    setting = Setting(epochs=4, batch_size=8, samples=60, augment=True, scheduler="step", norm=False)
    changes = [{"microbatch_size": size} for size in (None, 3, 1, 5, None)]
    server.start(setting, tmp_path / "whole").finish()
    go_on_with(server, setting, tmp_path / "changed", changes)
    whole, changed = Run.open(tmp_path / "whole"), Run.open(tmp_path / "changed")
    # The mean over a step's samples of what identifies them, whichever micro-batches they came in.
    for name, tolerance in (("train/sample", 1e-9), ("train/loss", 1e-4)):
        assert changed.series(name).steps.tolist() == whole.series(name).steps.tolist()
        assert np.allclose(changed.series(name).values, whole.series(name).values, rtol=tolerance, atol=1e-9)
    one, other = (newest(tmp_path / name / "checkpoints") for name in ("whole", "changed"))
    assert one is not None
    assert other is not None
    for name, weights in one.contents["model"].items():
        assert np.allclose(weights, other.contents["model"][name], atol=1e-4), name
