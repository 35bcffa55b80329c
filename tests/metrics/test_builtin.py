"""Built-in metrics against scikit-learn, torchmetrics and NumPy, however the samples are batched."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics
from torch.utils._python_dispatch import TorchDispatchMode

from treadle.metrics import (
    F1,
    Accuracy,
    Mean,
    MeanAbsoluteError,
    MeanSquaredError,
    Metric,
    TopKAccuracy,
)

CLASSES = 5


def all_metrics() -> dict[str, Metric]:
    return {
        "accuracy": Accuracy(),
        "ignoring": Accuracy(ignore_index=1),
        "top2": TopKAccuracy(2),
        "top2_ignoring": TopKAccuracy(2, ignore_index=1),
        "macro": F1(),
        "weighted": F1("weighted"),
        "micro": F1("micro"),
        "f1_ignoring": F1(ignore_index=1, num_classes=CLASSES),
        "mean": Mean(torch.nn.functional.cross_entropy),
    }


def data(count: int = 97, classes: int = CLASSES) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(count, classes), torch.randint(0, classes, (count,))


def value(metric: Metric, *batches: tuple[torch.Tensor, torch.Tensor]) -> float:
    for output, target in batches:
        metric.update(output, target)
    result = metric.compute()
    assert isinstance(result, torch.Tensor)
    assert result.shape == ()
    return float(result)


def expected(name: str, output: torch.Tensor, target: torch.Tensor) -> float:
    scores, truth = output.numpy(), target.numpy()
    predicted = scores.argmax(1)
    kept = truth != 1
    labels = list(range(CLASSES))
    if name == "accuracy":
        return float(sklearn_metrics.accuracy_score(truth, predicted))
    if name == "ignoring":
        return float(sklearn_metrics.accuracy_score(truth[kept], predicted[kept]))
    if name == "top2":
        return float(sklearn_metrics.top_k_accuracy_score(truth, scores, k=2, labels=labels))
    if name == "top2_ignoring":
        return float(sklearn_metrics.top_k_accuracy_score(truth[kept], scores[kept], k=2, labels=labels))
    if name == "f1_ignoring":
        return float(sklearn_metrics.f1_score(truth[kept], predicted[kept], average="macro"))
    if name == "mean":
        return float(torch.nn.functional.cross_entropy(output.double(), target))
    return float(sklearn_metrics.f1_score(truth, predicted, average=name, zero_division=0.0))


@pytest.mark.parametrize("name", all_metrics())
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=8), seed=st.integers(0, 2**31))
@settings(max_examples=15, deadline=None)
def test_any_batching_gives_the_value_over_the_whole_set(name: str, sizes: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    count = sum(sizes) + 2
    output = torch.randn(count, CLASSES, generator=generator)
    target = torch.randint(0, CLASSES, (count,), generator=generator)
    target[-2:] = 0  # so that something is left when class 1 is ignored
    batches = zip(output.split([*sizes, 2]), target.split([*sizes, 2]), strict=True)
    assert value(all_metrics()[name], *batches) == pytest.approx(expected(name, output, target), abs=1e-6)


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=8), seed=st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_regression_metrics_do_not_depend_on_batching(sizes: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    output, target = torch.randn(2, sum(sizes), 3, generator=generator)
    batches = list(zip(output.split(sizes), target.split(sizes), strict=True))
    difference = output.double().numpy() - target.double().numpy()
    assert value(MeanSquaredError(), *batches) == pytest.approx(float((difference**2).mean()), rel=1e-5)
    assert value(MeanAbsoluteError(), *batches) == pytest.approx(float(np.abs(difference).mean()), rel=1e-5)


def test_dense_predictions_count_every_pixel() -> None:
    output, target = torch.randn(4, 3, 5, 6), torch.randint(0, 3, (4, 5, 6))
    truth, predicted = target.flatten().numpy(), output.argmax(1).flatten().numpy()
    assert value(Accuracy(), (output, target)) == pytest.approx((truth == predicted).mean())
    assert value(TopKAccuracy(3), (output, target)) == 1.0
    assert value(F1(), (output, target)) == pytest.approx(
        sklearn_metrics.f1_score(truth, predicted, average="macro")
    )


@pytest.mark.parametrize("kind", [torch.float32, torch.int64, torch.bool])
def test_binary_logits_against_labels_of_any_type(kind: torch.dtype) -> None:
    logits, labels = torch.randn(50), torch.rand(50) > 0.4
    truth, predicted = labels.numpy(), (logits > 0).numpy()
    target = labels.to(kind)
    for output, wanted in ((logits, target), (logits[:, None], target), (logits[:, None], target[:, None])):
        assert value(Accuracy(), (output, wanted)) == pytest.approx((truth == predicted).mean())
        assert value(F1("binary"), (output, wanted)) == pytest.approx(
            sklearn_metrics.f1_score(truth, predicted)
        )
    chances = logits.sigmoid()
    assert value(Accuracy(threshold=0.5), (chances, target)) == pytest.approx((truth == predicted).mean())


def test_regression_output_of_one_column_is_never_broadcast() -> None:
    output, target = torch.randn(6, 1), torch.randn(6)
    wanted = float((output.squeeze(1) - target).square().mean())
    assert value(MeanSquaredError(), (output, target)) == pytest.approx(wanted)
    assert value(MeanSquaredError(), (output.squeeze(1), target[:, None])) == pytest.approx(wanted)


def test_half_precision_and_integers_are_widened_first() -> None:
    large = torch.full((100_000,), 3.0, dtype=torch.float16)
    assert value(MeanSquaredError(), (large, -large)) == 36.0
    assert value(MeanAbsoluteError(), (torch.tensor([0], dtype=torch.uint8), torch.tensor([255]))) == 255.0


def test_counts_stay_exact_where_single_precision_would_not() -> None:
    metric = Accuracy()
    metric.load_state_dict({"correct": torch.tensor(2**24, dtype=torch.int64), "count": 2**24})
    metric.update(torch.tensor([[0.0, 1.0]]), torch.tensor([1]))
    assert metric.correct == 2**24 + 1
    total = MeanSquaredError()
    total.load_state_dict({"total": torch.tensor(2.0**25, dtype=torch.float64), "count": 2**25})
    total.update(torch.ones(1), torch.zeros(1))
    assert total.total == 2**25 + 1


def test_macro_leaves_out_classes_that_occur_nowhere() -> None:
    output = torch.eye(4)[[0, 1, 0, 1]]
    target = torch.tensor([0, 1, 1, 1])
    truth, predicted = target.numpy(), output.argmax(1).numpy()
    assert value(F1(), (output, target)) == pytest.approx(
        sklearn_metrics.f1_score(truth, predicted, average="macro")
    )


def test_binary_f1_of_nothing_but_true_negatives_is_zero() -> None:
    assert value(F1("binary"), (torch.tensor([-1.0, -2.0]), torch.tensor([0, 0]))) == 0.0


@pytest.mark.parametrize("metric", [*all_metrics().values(), F1("binary"), MeanSquaredError()], ids=repr)
def test_no_samples_is_nan_without_a_warning(metric: Metric) -> None:
    assert math.isnan(value(metric))


def test_nan_outputs_make_a_nan_error_and_a_wrong_class() -> None:
    assert math.isnan(value(MeanSquaredError(), (torch.tensor([float("nan")]), torch.zeros(1))))
    assert value(Accuracy(), (torch.full((2,), float("nan")), torch.ones(2))) == 0.0


@pytest.mark.parametrize(
    ("metric", "output", "target"),
    [
        (Accuracy(), (8, 3), (7,)),
        (Accuracy(), (8, 3), (8, 1)),
        (Accuracy(), (3,), ()),
        (Accuracy(), (8, 3, 4), (8, 5)),
        (F1(), (8, 3), (7,)),
        (TopKAccuracy(2), (8, 3), (8, 3)),
        (TopKAccuracy(4), (8, 3), (8,)),
        (MeanSquaredError(), (8, 2), (8,)),
        (MeanSquaredError(), (8,), (7,)),
        (MeanAbsoluteError(), (8, 1), (1, 8)),
    ],
)
def test_shapes_that_do_not_fit_are_named(
    metric: Metric, output: tuple[int, ...], target: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError) as caught:
        metric.update(torch.zeros(output), torch.zeros(target, dtype=torch.int64))
    assert str(output) in str(caught.value)
    if not (isinstance(metric, TopKAccuracy) and metric.k == 4):
        assert str(target) in str(caught.value)


def test_a_function_must_return_one_number() -> None:
    def squares(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (output - target) ** 2

    with pytest.raises(ValueError, match=r"squares returned a tensor of shape \(4,\)"):
        Mean(squares).update(torch.zeros(4), torch.zeros(4))
    with pytest.raises(TypeError, match="cannot be called"):
        Mean(3)  # type: ignore[arg-type]


def test_a_function_may_return_a_float_and_take_any_tree() -> None:
    metric = Mean(lambda output, target: float(output["x"].mean()))
    metric.update({"x": torch.ones(3)}, {"y": torch.zeros(3)})
    metric.update({"x": torch.zeros(1)}, [torch.zeros(1)])
    assert metric.compute() == 0.75


@pytest.mark.parametrize("wrong", [lambda: F1("mean"), lambda: F1(num_classes=1), lambda: TopKAccuracy(0)])
def test_settings_are_checked(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"must be|allowed are"):
        wrong()  # type: ignore[operator]


@pytest.mark.parametrize("name", all_metrics())
def test_state_survives_and_replicas_join(name: str) -> None:
    output, target = data()
    whole = value(all_metrics()[name], (output, target))
    left, right, idle = (all_metrics()[name] for _ in range(3))
    left.update(output[:40], target[:40])
    right.update(output[40:], target[40:])

    restored = all_metrics()[name]
    restored.load_state_dict(left.state_dict())
    assert value(restored, (output[40:], target[40:])) == pytest.approx(whole, abs=1e-6)

    joined = copy.deepcopy(idle)
    joined.merge([left.state_dict(), idle.state_dict(), right.state_dict()])
    assert value(joined) == pytest.approx(whole, abs=1e-6)

    reduced = all_metrics()[name]
    reduced.load_sums([a + b for a, b in zip(left.sums(), right.sums(), strict=True)])
    assert value(reduced) == pytest.approx(whole, abs=1e-6)


def test_saved_state_is_a_copy() -> None:
    metric = Accuracy()
    saved = metric.state_dict()
    metric.update(*data())
    assert saved["correct"] == 0
    metric.reset()
    assert metric.count == 0
    assert metric.correct == 0


def test_state_of_another_metric_is_refused() -> None:
    with pytest.raises(ValueError, match="saved by another metric"):
        Accuracy().load_state_dict(MeanSquaredError().state_dict())


def test_a_reset_in_inference_mode_does_not_freeze_the_metric() -> None:
    metric = Accuracy()
    with torch.inference_mode():
        metric.reset()
        metric.update(*data())
    metric.update(*data())
    assert metric.count == 2 * 97


def test_no_graph_is_kept() -> None:
    output = torch.randn(4, CLASSES, requires_grad=True)
    for metric in (*all_metrics().values(), MeanSquaredError()):
        target = torch.zeros(4, CLASSES) if isinstance(metric, MeanSquaredError) else torch.zeros(4).long()
        metric.update(output, target)
        assert not any(part.requires_grad for part in metric.sums())


class CountedCalls(TorchDispatchMode):
    """Every operator that runs, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", all_metrics())
def test_update_never_reads_the_device(name: str) -> None:
    metric = all_metrics()[name]
    metric.update(*data())
    with CountedCalls() as calls:
        metric.update(*data())
    waits = {"aten._local_scalar_dense.default", "aten.nonzero.default", "aten.bincount.default"}
    assert not waits & set(calls.names)
    assert not any("is_nonzero" in call or "equal.default" in call for call in calls.names)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", all_metrics())
def test_update_and_reset_never_wait_for_a_cuda_device(name: str) -> None:
    metric = all_metrics()[name]
    metric.to("cuda")
    output, target = (part.cuda() for part in data())
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(2):
            metric.update(output, target)
        metric.sums()
        metric.reset()
        metric.update(output, target)
        result = metric.compute()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert isinstance(result, torch.Tensor)
    assert float(result) == pytest.approx(expected(name, output.cpu(), target.cpu()), abs=1e-5)


def test_accuracy_is_a_handful_of_operators() -> None:
    output, target = data()
    metric = Accuracy()
    with CountedCalls() as calls:
        metric.update(output, target)
    assert len(calls.names) <= 4, calls.names


def test_a_metric_of_ones_own_is_three_short_methods() -> None:
    class Bias(Metric):
        total: torch.Tensor
        count: int

        def __init__(self) -> None:
            super().__init__()
            self.accumulate("total", torch.zeros((), dtype=torch.float64))
            self.accumulate("count", 0)

        def update(self, output: torch.Tensor, target: torch.Tensor) -> None:
            self.total.add_((output.detach() - target).sum())
            self.count += target.numel()

        def compute(self) -> torch.Tensor:
            return self.ratio(self.total, self.count)

    assert value(Bias(), (torch.full((3,), 2.0), torch.zeros(3))) == 2.0
    with pytest.raises(NotImplementedError, match="Metric does not define update"):
        Metric().update(None, None)
