"""Pictures of results, at evaluations."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from treadle.callbacks import ResultPicture


def image(results: Any) -> torch.Tensor:
    """One pixel for each sample: whether it is right."""
    return (results.predictions == results.targets)[None]


def test_a_picture_of_every_second_evaluation_is_recorded(fit: Any) -> None:
    seen = []

    def draw(results: Any) -> torch.Tensor:
        seen.append((len(results.targets), results.values))
        return image(results)

    run = fit([ResultPicture(draw, every=2)], max_epochs=5).run
    assert [(one.name, one.step) for one in run.media("picture")] == [("val/results", 8), ("val/results", 16)]
    assert [number for number, _ in seen] == [13, 13]
    assert seen[0][1]["val/accuracy"] == run.history["val/accuracy"][1]


def test_it_leaves_no_trace_and_goes_on_after_a_cut(fit: Any, resumes_exactly: Any) -> None:
    whole = resumes_exactly(lambda: [ResultPicture(image), ResultPicture(image, every=3, name="other")])
    assert whole.run.weights_sha256 == fit([], "without").run.weights_sha256
    assert len(whole.run.media("picture", "val/results")) == 3


def test_figures_of_scores_are_drawn(fit: Any) -> None:
    pytest.importorskip("matplotlib")
    from treadle import scores

    picture = ResultPicture(lambda results: scores.classification(results).figure())
    assert len(fit([picture], max_epochs=1).run.media("picture")) == 1


@pytest.mark.parametrize("every", [0, -1, True, 1.5])
def test_every_is_checked(every: Any) -> None:
    with pytest.raises(ValueError, match="every is"):
        ResultPicture(image, every=every)
