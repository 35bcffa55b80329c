"""What TensorBoard's own reader finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.loggers.training import MEDIA, cut_and_resumed, expected, train

from treadle.loggers import TensorBoardLogger

pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install 'treadle[tensorboard]'")


def read(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(
        str(folder), size_guidance={"scalars": 0, "images": 0, "histograms": 0, "tensors": 0}
    )
    found.Reload()
    return found


def points(found: Any) -> list[tuple[tuple[str, int], float]]:
    names = found.Tags()["scalars"]
    return [((name, event.step), event.value) for name in names for event in found.Scalars(name)]


@pytest.mark.parametrize("how", ["whole", "cut"])
def test_everything_is_there_once(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "run"
    run = (
        train(folder, [TensorBoardLogger()]) if how == "whole" else cut_and_resumed(folder, TensorBoardLogger)
    )
    found = read(folder / "tensorboard")
    values = points(found)
    assert len(values) == len(dict(values))
    assert dict(values) == pytest.approx(expected(run), rel=1e-6)  # TensorBoard keeps 32 bits
    assert [picture.step for picture in found.Images("train/weights")] == list(MEDIA)
    assert (found.Images("train/weights")[0].width, found.Images("train/weights")[0].height) == (3, 2)
    # Of texts this reader keeps also those that the later file declares void (its `accumulated_attrs` leaves
    # tensors out); the server goes by the order of steps.
    texts = {
        text.step: text.tensor_proto.string_val[0] for text in found.Tensors("train/remark/text_summary")
    }
    assert texts == {step: f"<b>step</b> {step}".encode() for step in MEDIA}
    histogram = found.Histograms("train/spread")[0].histogram_value
    assert (histogram.num, histogram.min, histogram.max) == (10, 4, 13)
    assert list(histogram.bucket) == [2] * 5
    settings = found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"SGD" in settings
