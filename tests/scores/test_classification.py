"""Classifiers measured: the same numbers as scikit-learn's, whole or in parts."""

# ruff: noqa: N802 - the capital letter is the row of the list of results that the test shows

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn import metrics as sk
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import treadle
from treadle.scores import BinaryScores, MulticlassScores, MultilabelScores, classification

GENERATOR = torch.Generator().manual_seed(5)
TARGETS = torch.randint(0, 4, (60,), generator=GENERATOR)
OUTPUTS = torch.randn(60, 4, generator=GENERATOR) + 2 * nn.functional.one_hot(TARGETS, 4)


def close(values: dict[str, float], expected: dict[str, float]) -> None:
    # torchmetrics computes areas in single precision.
    tolerance = {name: 1e-6 if name in ("auroc", "average_precision") else 1e-12 for name in expected}
    for name, value in expected.items():
        assert values[name] == pytest.approx(value, abs=tolerance[name]), name


def test_C9_many_classes() -> None:
    scores = classification((OUTPUTS, TARGETS))
    assert type(scores) is MulticlassScores
    probabilities, predicted = OUTPUTS.double().softmax(1), OUTPUTS.argmax(1)
    members = nn.functional.one_hot(TARGETS, 4)
    precision, recall, f1, _ = sk.precision_recall_fscore_support(TARGETS, predicted, average="macro")
    close(
        scores.values,
        {
            "accuracy": sk.accuracy_score(TARGETS, predicted),
            "precision": precision,
            "recall": recall,
            "f1": f1,
            "auroc": sk.roc_auc_score(members, probabilities),
            "average_precision": sk.average_precision_score(members, probabilities),
            "log_loss": sk.log_loss(TARGETS, probabilities),
        },
    )
    assert scores.values["matthews"] == pytest.approx(sk.matthews_corrcoef(TARGETS, predicted), abs=1e-6)
    assert scores.confusion.tolist() == sk.confusion_matrix(TARGETS, predicted).tolist()
    report = sk.classification_report(TARGETS, predicted, output_dict=True)
    for name, row in scores.per_class().items():
        assert row["f1"] == pytest.approx(report[name]["f1-score"])
        assert row["support"] == report[name]["support"]


@pytest.mark.parametrize("shape", [(60,), (60, 1), (60, 2)])
@pytest.mark.parametrize("probabilities", [False, True])
def test_C9_two_classes(shape: tuple[int, ...], probabilities: bool) -> None:
    truth = (TARGETS > 1).long()
    logits = torch.randn(60, generator=torch.Generator().manual_seed(1)).double() + truth
    chance = logits.sigmoid()
    outputs = torch.stack([-logits / 2, logits / 2], 1) if shape[1:] == (2,) else logits.reshape(shape)
    if probabilities:
        outputs = torch.stack([1 - chance, chance], 1) if shape[1:] == (2,) else chance.reshape(shape)
    scores = classification((outputs, truth), probabilities=probabilities)
    assert type(scores) is BinaryScores
    predicted = (logits > 0).long()
    precision, recall, f1, _ = sk.precision_recall_fscore_support(truth, predicted, average="binary")
    close(
        scores.values,
        {
            "accuracy": sk.accuracy_score(truth, predicted),
            "precision": precision,
            "recall": recall,
            "specificity": sk.recall_score(truth, predicted, pos_label=0),
            "f1": f1,
            "auroc": sk.roc_auc_score(truth, chance),
            "average_precision": sk.average_precision_score(truth, chance),
            "log_loss": sk.log_loss(truth, chance),
        },
    )
    false_positive, true_positive, _ = sk.roc_curve(truth, chance, drop_intermediate=False)
    found = scores.roc()["1"]
    assert found[0].tolist() == pytest.approx(false_positive.tolist())
    assert found[1].tolist() == pytest.approx(true_positive.tolist())


def test_C9_many_labels() -> None:
    generator = torch.Generator().manual_seed(3)
    truth = torch.randint(0, 2, (40, 3), generator=generator)
    outputs = torch.randn(40, 3, generator=generator).double() + truth
    scores = classification((outputs, truth.float()), names=["red", "round", "ripe"])
    assert type(scores) is MultilabelScores
    predicted = (outputs > 0).long()
    close(
        scores.values,
        {
            "f1": sk.f1_score(truth, predicted, average="macro"),
            "f1_micro": sk.f1_score(truth, predicted, average="micro"),
            "exact_match": sk.accuracy_score(truth, predicted),
            "hamming_distance": sk.hamming_loss(truth, predicted),
            "auroc": sk.roc_auc_score(truth, outputs),
            "average_precision": sk.average_precision_score(truth, outputs),
        },
    )
    assert scores.confusion.tolist() == sk.multilabel_confusion_matrix(truth, predicted).tolist()
    assert scores.headline == "f1"


def test_positions_are_items_and_ignored_ones_are_not() -> None:
    outputs = torch.randn(6, 3, 5, generator=torch.Generator().manual_seed(0))
    targets = torch.randint(0, 3, (6, 5), generator=torch.Generator().manual_seed(0))
    targets[:, 3:] = -100
    scores = classification((outputs, targets))
    kept = outputs.argmax(1)[:, :3] == targets[:, :3]
    assert scores.samples == 18
    assert scores.values["accuracy"] == pytest.approx(kept.double().mean().item())


def test_what_the_task_decided_counts() -> None:
    class Cautious(treadle.SupervisedTask):
        def decide(self, outputs: Any, targets: Any) -> Any:
            return (outputs.squeeze(1) > -0.5).long()  # another threshold than 0

    torch.manual_seed(0)
    task = Cautious(nn.Linear(4, 1), cross_entropy)
    trainer = treadle.Trainer(run_dir=None, progress=False)
    task.loss = lambda output, target: output.mean()
    data = (OUTPUTS, (TARGETS > 1).long())
    results = trainer.results(task, data)
    scores = classification(results)
    assert 0 < results.predictions.sum() != (results.outputs > 0).sum()
    assert scores.confusion[:, 1].sum() == results.predictions.sum()


def test_C9_parts_add_up_exactly() -> None:
    whole = classification((OUTPUTS, TARGETS))
    cuts = [slice(start, start + 20) for start in (0, 20, 40)]
    parts = [classification((OUTPUTS[cut], TARGETS[cut])) for cut in cuts]
    assert sum(parts).values == whole.values  # type: ignore[attr-defined]
    assert (parts[0] + parts[1]).samples == 40
    means = sum(part.values["auroc"] for part in parts) / 3
    assert means != pytest.approx(whole.values["auroc"], abs=1e-4)  # a mean of parts is not the whole
    with pytest.raises(ValueError, match="added to themselves"):
        parts[0] + parts[0]


def test_C9_comparison_knows_which_way_is_better() -> None:
    weak, strong = classification((OUTPUTS * 0.2, TARGETS)), classification((OUTPUTS, TARGETS))
    noise = classification((OUTPUTS.flip(0), TARGETS))
    assert noise < strong
    assert strong > noise
    assert max([noise, strong, noise]) is strong
    by_loss = [classification((one, TARGETS), headline="log_loss") for one in (OUTPUTS * 0.2, OUTPUTS)]
    assert by_loss[0].values["log_loss"] > by_loss[1].values["log_loss"]
    assert by_loss[0] < by_loss[1]  # less loss is better
    assert not weak < strong  # the same accuracy
    assert not strong < weak
    with pytest.raises(ValueError, match=r"'accuracy' \(higher\) cannot be compared with .* 'log_loss'"):
        _ = weak < by_loss[0]


def test_values_that_are_not_defined_are_nan_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one_class = classification((torch.tensor([0.5, -1.0]), torch.tensor([1, 1])))
        broken = classification((torch.full((3, 4), math.nan), torch.tensor([0, 1, 3])))
        rare = classification((OUTPUTS[TARGETS < 2], TARGETS[TARGETS < 2]))
    assert math.isnan(one_class.values["auroc"])
    assert not math.isnan(one_class.values["accuracy"])
    assert math.isnan(broken.values["log_loss"])
    assert math.isnan(broken.values["auroc"])
    kept = TARGETS < 2
    probabilities = OUTPUTS[kept].double().softmax(1)[:, :2]
    members = nn.functional.one_hot(TARGETS[kept], 2)
    assert rare.values["auroc"] == pytest.approx(sk.roc_auc_score(members, probabilities), abs=1e-6)


def test_nan_is_worse_than_anything() -> None:
    nothing = classification((torch.tensor([0.5, -1.0]), torch.tensor([1, 1])), headline="auroc")
    least = classification((torch.tensor([0.5, -1.0]), torch.tensor([0, 1])), headline="auroc")
    assert least.score == 0
    assert nothing < least
    assert max(nothing, least) is least


def test_table_and_json(tmp_path: Path) -> None:
    scores = classification((torch.tensor([0.5, -1.0]), torch.tensor([1, 1])), names=["no", "yes"])
    lines = scores.table().splitlines()
    assert lines[0] == "binary scores of 2 samples"
    assert lines[1].split() == ["*", "accuracy", "0.5"]
    assert [line.split() for line in lines if line.startswith("yes")] == [
        ["yes", "1.0000", "0.5000", "0.6667", "2"]
    ]
    scores.to_json(tmp_path / "scores.json")

    def refuse(name: str) -> None:
        raise AssertionError(name)

    found = json.loads((tmp_path / "scores.json").read_text(), parse_constant=refuse)
    assert found["values"]["auroc"] == {"$float": "nan"}
    assert found["values"]["recall"] == 0.5
    assert (found["headline"], found["better"], found["samples"]) == ("accuracy", "higher", 2)
    assert found["confusion"] == [[0, 0], [1, 1]]
    assert found["classes"]["yes"]["support"] == 2


@pytest.mark.parametrize(
    ("outputs", "targets", "options", "message"),
    [
        (torch.zeros(3, 4), torch.tensor([0, 1, 4]), {}, "4 is among the targets; there are 4 classes"),
        (torch.zeros(3), torch.tensor([0, 1, 2]), {}, "there are 2 classes"),
        (torch.zeros(3, 4), torch.zeros(5), {}, r"shape \(3, 4\) and the targets \(5,\)"),
        (torch.tensor([0.2, 3.0]), torch.tensor([0, 1]), {"probabilities": True}, "are they logits"),
        (torch.zeros(3, 4), torch.full((3,), -100), {}, "no item to measure"),
        (torch.zeros(3, 4), torch.tensor([0, 1, 2]), {"names": ["a"]}, "there are 4 classes"),
        (
            torch.zeros(3, 4),
            torch.tensor([0, 1, 2]),
            {"headline": "beauty"},
            "allowed are accuracy, precision",
        ),
        (torch.zeros(3, 4), torch.tensor([0, 1, 2]), {"better": "more"}, "allowed are 'higher', 'lower'"),
    ],
)
def test_what_does_not_fit_is_said(outputs: Tensor, targets: Tensor, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classification((outputs, targets), **options)


def test_numbers_are_no_classes() -> None:
    with pytest.raises(TypeError, match=r"treadle\.scores\.regression"):
        classification((torch.zeros(3), torch.tensor([0.0, 0.5, 1.0])))
    with pytest.raises(TypeError, match="outputs are dict"):
        classification(({"a": torch.zeros(3)}, torch.zeros(3)))
    with pytest.raises(TypeError, match=r"trainer\.results"):
        classification(OUTPUTS)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no targets"):
        classification(treadle.collecting.Results({}, OUTPUTS, OUTPUTS))
