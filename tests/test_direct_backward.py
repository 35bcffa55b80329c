"""The short way into autograd's engine leaves the gradients of `Tensor.backward`, or is not taken."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from treadle import direct_backward as module
from treadle.direct_backward import direct_backward
from treadle.engine import Engine
from treadle.precision import ScaledFloat16
from treadle.strategy import Strategy


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))


def loss_of(model: nn.Module) -> Tensor:
    inputs = torch.arange(20.0).reshape(4, 5) / 7
    return cross_entropy(model(inputs), torch.tensor([0, 2, 1, 1]))


def gradients(model: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def engine(precision: Any = None) -> Engine:
    from treadle.precision import Precision

    return Engine(Strategy(torch.device("cpu")), precision or Precision())


def test_it_is_taken_here() -> None:
    assert direct_backward() is not module._backward


@pytest.mark.parametrize("share", [1.0, 1 / 3, torch.tensor(1 / 3), torch.tensor(0.2, dtype=torch.float64)])
@pytest.mark.parametrize("precision", [None, ScaledFloat16], ids=["fp32", "fp16"])
def test_an_engines_gradients_are_those_of_a_product_to_the_bit(share: Any, precision: Any) -> None:
    ours, theirs = network(), network()
    verbs = engine(precision and precision("cpu"))
    for _ in range(2):  # the second time adds
        verbs.backward(loss_of(ours), share)
        scaled = verbs.precision.scale(loss_of(theirs) * share)
        scaled.backward()  # type: ignore[no-untyped-call]
    assert len(gradients(ours)) == 4
    assert all(torch.equal(a, b) for a, b in zip(gradients(ours), gradients(theirs), strict=True))


def test_hooks_of_tensors_and_anomalies_are_seen() -> None:
    model, seen = network(), []
    model[0].weight.register_hook(lambda gradient: seen.append(gradient.shape))  # type: ignore[operator,union-attr]
    engine().backward(loss_of(model))
    assert seen == [(7, 5)]
    values = torch.zeros(1, requires_grad=True)
    with (
        warnings.catch_warnings(action="ignore"),
        torch.autograd.detect_anomaly(check_nan=True),
        pytest.raises(RuntimeError, match="nan values"),
    ):
        engine().backward((values.sqrt() * 0).sum())


def test_the_errors_are_torchs_own() -> None:
    with pytest.raises(RuntimeError, match="does not require grad"):
        engine().backward(torch.ones(()))
    with pytest.raises(RuntimeError, match="only for scalar outputs"):
        engine().backward(torch.ones(2, requires_grad=True) * 2)


def test_a_loss_of_one_element_is_as_good_as_a_scalar() -> None:
    values = torch.ones(1, requires_grad=True)
    engine().backward(values * 3, 0.5)
    assert values.grad is not None
    assert values.grad.tolist() == [1.5]


class Wrapped(Tensor):
    """A subclass that sees what is done to it."""

    calls: list[str] = []  # noqa: RUF012

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cls.calls.append(function.__name__)
        return super().__torch_function__(function, types, args, kwargs or {})


def test_a_subclass_goes_the_long_way() -> None:
    model = network()
    loss = loss_of(model).as_subclass(Wrapped)
    Wrapped.calls.clear()
    engine().backward(loss)
    assert "backward" in Wrapped.calls
    assert len(gradients(model)) == 4


def missing() -> Any:
    return SimpleNamespace()


def otherwise() -> Any:
    return SimpleNamespace(_execution_engine=SimpleNamespace(run_backward=lambda *a, **k: None))


def refusing() -> Any:
    def run(outputs: Any, gradients: Any) -> None:
        raise AssertionError

    return SimpleNamespace(_execution_engine=SimpleNamespace(run_backward=run))


@pytest.mark.parametrize("torch_then", [missing, otherwise, refusing])
def test_where_torch_has_changed_the_long_way_is_taken(
    torch_then: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "Variable", torch_then())
    monkeypatch.setattr("treadle.engine.direct_backward", direct_backward.__wrapped__)  # nothing remembered
    assert direct_backward.__wrapped__() is module._backward
    model = network()
    engine().backward(loss_of(model))
    assert len(gradients(model)) == 4
