"""Gradients and activations, measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import treadle
from treadle.callbacks import ActivationStatistics, GradientDistribution, GradientStatistics
from treadle.callbacks.gradient_distribution import HIGHEST, KIND, LOWEST, histogram

EACH = treadle.Every(steps=1)


class Gradients(treadle.Callback):
    """Keeps a copy of every step's gradients by parameter."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Tensor]] = []

    def on_before_optimizer_step(self, state: treadle.State) -> None:
        self.seen.append({n: p.grad.clone() for n, p in state.task.named_parameters() if p.grad is not None})


def test_gradient_statistics_are_those_of_the_step(fit: Callable[..., Any]) -> None:
    kept = Gradients()
    run, _ = fit([kept, GradientStatistics(EACH, layers=True)], accumulate=2)
    elements = [torch.cat([g.flatten() for g in step.values()]) for step in kept.seen]
    expected = {
        "norm": [float(e.norm()) for e in elements],
        "mean": [float(e.mean()) for e in elements],
        "std": [float(e.std(correction=0)) for e in elements],
        "min": [float(e.min()) for e in elements],
        "max": [float(e.max()) for e in elements],
    }
    for name, values in expected.items():
        assert run.series(f"gradient/{name}").values.tolist() == pytest.approx(values, rel=1e-4, abs=1e-8)
    last = [
        float(torch.cat([g.flatten() for n, g in step.items() if n.startswith("model.4.")]).norm())
        for step in kept.seen
    ]
    assert run.series("gradient/model.4/norm").values.tolist() == pytest.approx(last, rel=1e-5)
    assert run.history["gradient/norm"][0] == pytest.approx(
        sum(run.series("gradient/norm").values[:2].tolist()) / 2
    )


def test_gradient_statistics_every_few_steps(
    fit: Callable[..., Any], resumes_exactly: Callable[..., Any]
) -> None:
    run, _ = resumes_exactly(
        lambda: [GradientStatistics(treadle.Every(steps=3), statistics=["norm"])], log_every=5
    )
    assert run.series("gradient/norm").steps.tolist() == [3, 6, 9, 12]
    assert not [name for name in run.names() if name.startswith("gradient") and name != "gradient/norm"]
    assert run.weights_sha256 == fit()[0].weights_sha256


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: GradientStatistics(treadle.Every(epochs=1)), "every is"),
        (lambda: GradientStatistics(statistics=["median"]), "norm, mean, std, min, max"),
        (lambda: GradientStatistics(statistics="norm"), "norm, mean, std, min, max"),
        (lambda: GradientDistribution(3), "every is 3"),
        (lambda: ActivationStatistics("relu"), "list of patterns"),
        (lambda: ActivationStatistics([]), "list of patterns"),
        (lambda: ActivationStatistics(dead_below=-1.0), "dead_below"),
    ],
)
def test_statistics_check_their_arguments(make: Callable[[], treadle.Callback], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


def test_histograms_count_powers_of_two() -> None:
    values = torch.tensor([0.0, 1.0, -1.5, 2.0, 0.25, 1e-30, float("inf"), float("nan"), -1e30])
    counts = dict(zip(range(LOWEST, HIGHEST + 1), histogram([values, values[:2]]).tolist(), strict=True))
    expected = {1: 3, 2: 1, -1: 1, LOWEST: 3, HIGHEST: 3}  # 2**0 <= 1 < 2**1; zeros and 1e-30; the huge
    assert {exponent: count for exponent, count in counts.items() if count} == expected
    assert histogram([torch.ones(2, dtype=torch.bfloat16)]).sum() == 2


def test_gradient_distribution_is_in_the_record(
    fit: Callable[..., Any], resumes_exactly: Callable[..., Any]
) -> None:
    make = lambda: [GradientDistribution(treadle.Every(steps=5))]  # noqa: E731
    run, _ = resumes_exactly(make)
    events = [event for event in run.events if event.kind == KIND]
    assert [event.step for event in events] == [5, 10]
    counts = events[0].details["counts"]
    assert {layer: sum(row) for layer, row in counts.items()} == {"model.0": 36, "model.1": 12, "model.4": 21}
    assert len(events[0].details["exponents"]) == len(counts["model.0"])
    cut, _ = fit(make(), "later", resume=run.path / "checkpoints" / "step-00000006")
    again = [event for event in cut.events if event.kind == KIND]
    assert [(event.step, event.details) for event in again] == [(10, events[1].details)]


class Outputs(treadle.Callback):
    """What ReLU puts out in training, recorded by a hook of its own."""

    def __init__(self, task: treadle.SupervisedTask, index: int = 2) -> None:
        self.seen: dict[int, list[Tensor]] = {}
        self.step = 0
        task.model[index].register_forward_hook(self.see)

    def see(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        if module.training:
            self.seen.setdefault(self.step, []).append(output.detach().clone())

    def on_step_start(self, state: treadle.State) -> None:
        self.step = state.current_step


def plain_task() -> treadle.SupervisedTask:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(5, 6), nn.Identity(), nn.ReLU(), nn.Linear(6, 3))
    return treadle.SupervisedTask(model, nn.CrossEntropyLoss(), torch.optim.SGD, lr=0.1)


def test_activation_statistics_of_all_microbatches(fit: Callable[..., Any]) -> None:
    task = plain_task()
    outputs = Outputs(task)
    seen = ActivationStatistics(["model.2", "model.3"], EACH)
    run, _ = fit([outputs, seen], task=task, accumulate=2, microbatch_size=3)
    for position, parts in enumerate(outputs.seen.values()):
        values = torch.cat([part.flatten() for part in parts])
        expected = {
            "mean": values.mean(),
            "std": values.std(correction=0),
            "dead": (values == 0).float().mean(),
        }
        for name, value in expected.items():
            recorded = run.series(f"activation/model.2/{name}").values.tolist()[position]
            assert recorded == pytest.approx(float(value), rel=1e-5)
    assert {name.split("/")[1] for name in run.names() if "activation" in name} == {"model.2", "model.3"}
    assert not task.model[3]._forward_hooks


def test_activation_statistics_leave_no_trace(
    fit: Callable[..., Any], resumes_exactly: Callable[..., Any]
) -> None:
    run, task = resumes_exactly(lambda: [ActivationStatistics(every=treadle.Every(steps=3))])
    assert run.series("activation/model.0/dead").steps.tolist() == [3, 6, 9, 12]
    assert run.weights_sha256 == fit()[0].weights_sha256
    assert not any(module._forward_hooks for module in task.modules())


def test_activation_hooks_are_removed_when_training_fails(fit: Callable[..., Any]) -> None:
    class Fail(treadle.Callback):
        def on_after_loss(self, state: treadle.State) -> None:
            if state.current_step == 1:
                raise treadle.CancelStep
            assert len(state.task.model[0]._forward_hooks) == 1
            raise RuntimeError("failed on purpose")

    task = plain_task()
    with pytest.raises(RuntimeError, match="on purpose"):
        fit([ActivationStatistics(every=EACH), Fail()], task=task)
    assert not any(module._forward_hooks for module in task.modules())


def test_activation_statistics_say_what_is_missing(fit: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"no module is named 'model.9'. The task has .*model.3"):
        fit([ActivationStatistics(["model.9"])], task=plain_task())
    task = plain_task()
    task.spare = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="none of the layers spare was called in step 1"):
        fit([ActivationStatistics(["spare"], EACH)], task=task)
