"""Metrics of torchmetrics and torcheval, and plain functions, behind one interface."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchmetrics
from torch.nn.functional import cross_entropy

from treadle.metrics import Accuracy, Mean, Metric, as_metric

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # torcheval's import uses torch.jit.script
    import torcheval.metrics

CLASSES = 4

FOREIGN: dict[str, Callable[[], Any]] = {
    "torchmetrics accuracy": lambda: torchmetrics.Accuracy(
        task="multiclass", num_classes=CLASSES, average="micro"
    ),
    "torchmetrics auroc": lambda: torchmetrics.AUROC(task="multiclass", num_classes=CLASSES),
    "torchmetrics per class": lambda: torchmetrics.F1Score(
        task="multiclass", num_classes=CLASSES, average=None
    ),
    "torchmetrics collection": lambda: torchmetrics.MetricCollection(
        {
            "precision": torchmetrics.Precision(task="multiclass", num_classes=CLASSES, average="macro"),
            "recall": torchmetrics.Recall(task="multiclass", num_classes=CLASSES, average="macro"),
        }
    ),
    "torchmetrics wrapper": lambda: torchmetrics.ClasswiseWrapper(
        torchmetrics.Accuracy(task="multiclass", num_classes=CLASSES, average=None)
    ),
    "torcheval accuracy": lambda: torcheval.metrics.MulticlassAccuracy(),
    "torcheval auroc": lambda: torcheval.metrics.MulticlassAUROC(num_classes=CLASSES),
    "function": lambda: cross_entropy,
}


def batches(count: int = 3) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [
        (torch.randn(size, CLASSES).softmax(1), torch.arange(size) % CLASSES)
        for size in (16, 9, 13, 5)[:count]
    ]


def computed(metric: Metric) -> dict[str, float]:
    value = metric.compute()
    return {k: float(v) for k, v in value.items()} if isinstance(value, dict) else {"": float(value)}


def direct(name: str, given: list[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, float]:
    """What the library itself says when it is driven by hand."""
    if name == "function":
        outputs, targets = (torch.cat(part) for part in zip(*given, strict=True))
        return {"": float(cross_entropy(outputs, targets))}
    metric = FOREIGN[name]()
    for output, target in given:
        metric.update(output, target)
    value = metric.compute()
    if isinstance(value, dict):
        return {key: float(item) for key, item in value.items()}
    return {"": float(value)} if value.ndim == 0 else {str(i): float(item) for i, item in enumerate(value)}


@pytest.mark.parametrize("name", FOREIGN)
def test_same_value_as_the_library_itself(name: str) -> None:
    given = batches()
    metric = as_metric(FOREIGN[name](), "theirs")
    for output, target in given:
        metric.update(output.requires_grad_(), target)
    assert computed(metric) == pytest.approx(direct(name, [(o.detach(), t) for o, t in given]), abs=1e-6)


@pytest.mark.parametrize("name", FOREIGN)
def test_state_goes_on_where_it_was(name: str) -> None:
    given = batches(4)
    first = as_metric(FOREIGN[name](), "theirs")
    for batch in given[:2]:
        first.update(*batch)
    first.compute()  # a value in between must not be cached into the state
    second = as_metric(FOREIGN[name](), "theirs")
    second.update(*given[3])  # is forgotten
    second.load_state_dict(first.state_dict())
    for batch in given[2:]:
        second.update(*batch)
    assert computed(second) == pytest.approx(direct(name, given), abs=1e-6)


@pytest.mark.parametrize("name", FOREIGN)
def test_replicas_are_joined(name: str) -> None:
    given = batches(4)
    replicas = [as_metric(FOREIGN[name](), "theirs") for _ in range(3)]
    replicas[0].update(*given[0])
    replicas[0].update(*given[1])
    replicas[2].update(*given[2])
    replicas[2].update(*given[3])
    joined = copy.deepcopy(replicas[0])
    joined.compute()  # a value in between must not be cached
    joined.merge([replica.state_dict() for replica in replicas[1:]])
    assert computed(joined) == pytest.approx(direct(name, given), abs=1e-6)


@pytest.mark.parametrize("name", FOREIGN)
def test_nothing_seen_is_nan_and_reset_forgets(name: str) -> None:
    metric = as_metric(FOREIGN[name](), "theirs")
    metric.to("cpu")
    assert all(math.isnan(value) for value in computed(metric).values())
    metric.update(*batches(1)[0])
    assert not any(math.isnan(value) for value in computed(metric).values())
    metric.reset()
    assert all(math.isnan(value) for value in computed(metric).values())


@pytest.mark.parametrize("name", FOREIGN)
def test_state_is_made_of_tensors_numbers_lists_and_dictionaries(name: str) -> None:
    def plain(tree: Any) -> bool:
        if isinstance(tree, dict):
            return all(isinstance(key, str) and plain(item) for key, item in tree.items())
        if isinstance(tree, list):
            return all(plain(item) for item in tree)
        return isinstance(tree, (torch.Tensor, int, float))

    metric = as_metric(FOREIGN[name](), "theirs")
    metric.update(*batches(1)[0])
    assert plain(metric.state_dict())


def test_what_is_given_is_copied() -> None:
    theirs = torchmetrics.MeanSquaredError()
    as_metric(theirs, "mse").update(torch.ones(3), torch.zeros(3))
    assert theirs._update_count == 0
    assert theirs.sync_on_compute
    ours = Accuracy()
    assert as_metric(ours, "accuracy") is not ours


def test_torchmetrics_starts_no_collective_of_its_own() -> None:
    metric = as_metric(FOREIGN["torchmetrics collection"](), "theirs")
    parts = [part for part in metric.metric.modules() if isinstance(part, torchmetrics.Metric)]  # type: ignore[attr-defined]
    assert len(parts) == 2
    assert not any(part.sync_on_compute or part._to_sync for part in parts)


def test_metrics_that_share_a_state_in_a_collection_are_all_up_to_date_when_saved() -> None:
    metric = as_metric(FOREIGN["torchmetrics collection"](), "theirs")
    for batch in batches():
        metric.update(*batch)
    assert {part["updates"] for part in metric.state_dict()["parts"].values()} == {3}


def test_a_state_of_another_metric_is_refused() -> None:
    one = as_metric(torchmetrics.MeanSquaredError(), "mse")
    other = as_metric(torchmetrics.Accuracy(task="binary"), "accuracy")
    with pytest.raises(ValueError, match="saved by another metric"):
        one.load_state_dict(other.state_dict())


def test_a_class_is_an_error_that_says_what_to_write() -> None:
    with pytest.raises(
        TypeError, match=r"metrics\['accuracy'\]: Accuracy is a class; give an instance: Accuracy\(\)"
    ):
        as_metric(Accuracy, "accuracy")


@pytest.mark.parametrize("wrong", ["accuracy", 3, None, {"a": 1}])
def test_anything_else_lists_what_is_allowed(wrong: object) -> None:
    with pytest.raises(TypeError, match="allowed are a treadle Metric, a torchmetrics metric"):
        as_metric(wrong, "theirs")


def test_a_value_that_is_no_number_names_the_metric() -> None:
    metric = as_metric(torchmetrics.ConfusionMatrix(task="multiclass", num_classes=CLASSES), "confusion")
    metric.update(*batches(1)[0])
    with pytest.raises(ValueError, match=r"metrics\['confusion'\].*shape \(4, 4\)"):
        metric.compute()
    with pytest.raises(TypeError, match="joined by merge"):
        metric.sums()


def test_functions_and_loss_modules_are_item_weighted() -> None:
    metric = as_metric(torch.nn.L1Loss(), "l1")
    assert isinstance(metric, Mean)
    metric.update(torch.ones(3), torch.zeros(3))
    metric.update(torch.zeros(1), torch.zeros(1))
    assert computed(metric) == {"": 0.75}


def test_no_metric_library_is_imported() -> None:
    program = (
        "import sys, treadle.metrics;"
        "print([m for m in ('torchmetrics', 'torcheval', 'sklearn', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
