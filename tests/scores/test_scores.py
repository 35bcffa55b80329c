"""Metrics of one's own among the scores, and the pictures."""

# ruff: noqa: N802 - the capital letter is the row of the list of results that the test shows

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torchmetrics

import treadle
from treadle import scores

OUTPUTS = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(20) % 3


class ExactMatch:
    """The face of a Hugging Face `evaluate` module, which need not be installed for this test."""

    def add_batch(self, *, predictions: Any, references: Any) -> None:
        raise AssertionError("everything is given at once")

    def compute(self, *, predictions: Any, references: Any) -> dict[str, Any]:
        assert isinstance(predictions, list)
        right = [one == other for one, other in zip(predictions, references, strict=True)]
        return {"exact_match": sum(right) / len(right)}


class Several(ExactMatch):
    def compute(self, *, predictions: Any, references: Any) -> dict[str, Any]:
        return {"f1": [0.25, 0.5], "count": len(references)}


def test_C9_metrics_of_every_kind_beside_the_own() -> None:
    found = scores.classification(
        (OUTPUTS, TARGETS),
        metrics={
            "top2": treadle.metrics.TopKAccuracy(2),
            "kappa": torchmetrics.CohenKappa("multiclass", num_classes=3),
            "spread": lambda output, target: output.std(),
            "match": ExactMatch(),
            "several": Several(),
        },
    )
    predicted = OUTPUTS.argmax(1)
    assert found.values["match"] == pytest.approx(found.values["accuracy"])
    assert found.values["top2"] == pytest.approx(
        (OUTPUTS.topk(2, 1).indices == TARGETS.unsqueeze(1)).any(1).double().mean().item()
    )
    kappa = torchmetrics.functional.cohen_kappa(predicted, TARGETS, "multiclass", num_classes=3)
    assert found.values["kappa"] == pytest.approx(kappa.item())
    assert found.values["spread"] == pytest.approx(OUTPUTS.std().item())
    assert {name: found.values[f"several_{name}"] for name in ("f1_0", "f1_1", "count")} == {
        "f1_0": 0.25,
        "f1_1": 0.5,
        "count": 20.0,
    }


def test_C9_the_real_evaluate_library() -> None:
    evaluate = pytest.importorskip("evaluate", reason="Hugging Face evaluate is not installed")

    class Matches(evaluate.Metric):  # type: ignore[misc]
        def _info(self) -> Any:
            import datasets

            features = datasets.Features(
                {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
            )
            return evaluate.MetricInfo(description="", citation="", features=features)

        def _compute(self, predictions: Any, references: Any) -> dict[str, Any]:
            return ExactMatch().compute(predictions=list(predictions), references=list(references))

    found = scores.classification((OUTPUTS, TARGETS), metrics={"match": Matches()})
    assert found.values["match"] == pytest.approx(found.values["accuracy"])


def test_C9_general_scores_are_of_anything() -> None:
    words = (["a", "b", "c"], ["a", "x", "c"])
    found = scores.general(words, {"match": ExactMatch()}, better="higher")
    assert (found.values, found.headline, found.samples) == ({"match": 2 / 3}, "match", 3)
    more = found + scores.general((["y"], ["z"]), {"match": ExactMatch()}, better="higher")
    assert more.values == {"match": 0.5}
    assert more < found
    assert found.table().splitlines() == ["general scores of 3 samples", "* match  0.666667"]
    trees = {"a": torch.ones(4), "b": torch.zeros(4)}
    gap = scores.general(
        (trees, torch.ones(4)), {"error": lambda output, target: (output["b"] - target).abs().mean()}
    )
    assert (gap.values["error"], gap.higher_is_better) == (1.0, False)
    with pytest.raises(NotImplementedError, match="Scores has no picture"):
        gap.figure()


def test_the_direction_of_a_headline_is_known_or_asked_for() -> None:
    metric = {"mine": lambda output, target: output.mean()}
    with pytest.raises(ValueError, match="is 'mine' better 'higher' or 'lower'"):
        scores.general((OUTPUTS, TARGETS), metric)
    assert not scores.general((OUTPUTS, TARGETS), metric, better="lower").higher_is_better
    declared = {"mean": torchmetrics.MeanSquaredError()}
    assert not scores.general((OUTPUTS[:, 0], OUTPUTS[:, 1]), declared).higher_is_better


def test_what_is_no_metric_is_said() -> None:
    for metrics, message in (({"a": 3}, "is no metric"), ([1], "give a mapping"), ({"a": Several}, "class")):
        with pytest.raises(TypeError, match=message):
            scores.general((OUTPUTS, TARGETS), metrics)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'accuracy', which there is already"):
        scores.classification((OUTPUTS, TARGETS), metrics={"accuracy": ExactMatch()})
    with pytest.raises(ValueError, match="nothing to measure"):
        scores.general((OUTPUTS, TARGETS), {})
    with pytest.raises(ValueError, match="headline is None; allowed are a, b"):
        scores.general((OUTPUTS, TARGETS), {"a": ExactMatch(), "b": ExactMatch()})


def test_importing_scores_imports_neither_torchmetrics_nor_matplotlib() -> None:
    code = (
        "import sys, treadle.scores\n"
        "assert not {'torchmetrics', 'matplotlib', 'sklearn', 'evaluate'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("library", ["torchmetrics.functional.classification", "matplotlib.figure"])
def test_a_missing_library_is_named_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    found = scores.classification((OUTPUTS, TARGETS))
    monkeypatch.setitem(sys.modules, library, None)
    extra = "metrics" if library.startswith("torchmetrics") else "plots"
    with pytest.raises(ImportError, match=rf"pip install 'treadle\[{extra}\]'"):
        scores.classification((OUTPUTS, TARGETS)) if extra == "metrics" else found.figure()


def test_C9_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    generator = torch.Generator().manual_seed(0)
    binary = scores.classification((OUTPUTS[:, 0], TARGETS % 2), names=["no", "yes"])
    labels = scores.classification((OUTPUTS, torch.randint(0, 2, (20, 3), generator=generator)))
    many = scores.classification((torch.randn(50, 30, generator=generator), torch.arange(50) % 30))
    numbers = scores.regression((OUTPUTS[:, 0], OUTPUTS[:, 1]))
    ranks = scores.ranking((OUTPUTS, torch.arange(60).reshape(20, 3) % 2), k=3)
    titles = []
    for number, each in enumerate([binary, labels, many, numbers, ranks]):
        figure = each.figure()
        titles.append([axes.get_title() for axes in figure.axes])
        path = tmp_path / f"{number}.png"
        figure.savefig(path)
        assert path.stat().st_size > 5000
    assert titles == [
        ["confusion", "ROC"],
        ["labels", "ROC"],
        ["confusion", "ROC"],
        ["predicted and true", "residuals"],
        ["precision of the first k", "recall of the first k"],
    ]
    confusion, roc = binary.figure().axes
    cells = [[int(text.get_text()) for text in confusion.texts][row * 2 : row * 2 + 2] for row in range(2)]
    assert cells == binary.confusion.tolist()
    curve = roc.lines[1]
    assert curve.get_xdata().tolist() == binary.roc()["yes"][0].tolist()
    residuals = numbers.figure().axes[1].collections[0].get_offsets()
    assert residuals[:, 1].tolist() == pytest.approx((OUTPUTS[:, 0] - OUTPUTS[:, 1]).tolist())
