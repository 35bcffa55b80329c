"""Every precision against the loop one would write by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from treadle.precision import BFloat16, Precision, ScaledFloat16, precision_of


def small_model() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.LayerNorm(16), nn.Linear(16, 3))


def small_batches(count: int = 6) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(4)
    return [
        (torch.randn(8, 6, generator=generator), torch.randint(0, 3, (8,), generator=generator))
        for _ in range(count)
    ]


def train(precision: Precision, model: nn.Module, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """The calls in the engine's order."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for x, y in batches:
        with precision.autocast():
            loss = nn.functional.cross_entropy(model(x), y)
        precision.scale(loss).backward()
        precision.unscale(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        precision.stepper(optimizer)()
        precision.update()
        optimizer.zero_grad()


def by_hand(kind: str, model: nn.Module, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", enabled=kind == "fp16")
    dtype = {"fp32": torch.bfloat16, "bf16": torch.bfloat16, "fp16": torch.float16}[kind]
    for x, y in batches:
        with torch.autocast("cpu", dtype=dtype, enabled=kind != "fp32"):
            loss = nn.functional.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("kind", ["fp32", "bf16", "fp16"])
def test_training_is_bitwise_the_hand_written_loop(kind: str) -> None:
    ours, theirs, full = small_model(), small_model(), small_model()
    train(precision_of(kind), ours, small_batches())
    by_hand(kind, theirs, small_batches())
    by_hand("fp32", full, small_batches())
    assert torch.equal(weights(ours), weights(theirs))
    assert torch.equal(weights(ours), weights(full)) == (kind == "fp32")


@pytest.mark.parametrize("kind", ["fp32", "bf16", "fp16"])
def test_autocast_is_one_object_for_the_whole_run(kind: str) -> None:
    precision = precision_of(kind)
    assert precision.autocast() is precision.autocast()


@pytest.mark.parametrize(
    ("precision", "dtype"), [(BFloat16(), torch.bfloat16), (ScaledFloat16(), torch.float16)]
)
def test_autocast_may_be_entered_inside_itself_and_always_ends(
    precision: Precision, dtype: torch.dtype
) -> None:
    x = torch.randn(2, 2)
    with precision.autocast():
        with precision.autocast():
            assert (x @ x).dtype == dtype
        assert (x @ x).dtype == dtype
        with torch.autocast("cpu", enabled=False), precision.autocast():
            assert (x @ x).dtype == dtype
    assert (x @ x).dtype == torch.float32
    with pytest.raises(RuntimeError, match="from the model"), precision.autocast(), precision.autocast():
        raise RuntimeError("from the model")
    assert not torch.is_autocast_enabled("cpu")
    with precision.autocast():
        assert (x @ x).dtype == dtype
    assert (x @ x).dtype == torch.float32


def test_cast_weights_are_not_remembered_from_one_step_to_the_next() -> None:
    precision, linear, x = BFloat16(), nn.Linear(4, 4, bias=False), torch.eye(4)
    with precision.autocast():
        before = linear(x)
        linear(x).sum().backward()
    with torch.no_grad():
        linear.weight.mul_(2)
    with precision.autocast():
        assert torch.equal(linear(x), before * 2)


def test_an_overflow_skips_the_step_and_halves_the_scale() -> None:
    precision, model = ScaledFloat16(initial_scale=1024.0), nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = weights(model)
    precision.scale(model(torch.ones(1, 2)).sum() * float("inf")).backward()
    precision.unscale(optimizer)
    precision.stepper(optimizer)()
    precision.update()
    assert torch.equal(weights(model), before)
    assert precision.state_dict()["scale"] == 512.0

    optimizer.zero_grad()
    precision.scale(model(torch.ones(1, 2)).sum()).backward()
    precision.unscale(optimizer)
    precision.stepper(optimizer)()
    precision.update()
    torch.testing.assert_close(weights(model), before - 0.1)
    assert precision.state_dict()["scale"] == 512.0


def test_unscaling_twice_is_unscaling_once_also_with_two_optimizers() -> None:
    precision = ScaledFloat16(initial_scale=8.0)
    models = [nn.Linear(1, 1, bias=False) for _ in range(2)]
    optimizers = [torch.optim.SGD(model.parameters(), lr=1.0) for model in models]
    for _ in range(2):
        for model, optimizer in zip(models, optimizers, strict=True):
            optimizer.zero_grad()
            precision.scale(model(torch.ones(1, 1)).sum()).backward()
            precision.unscale(optimizer)
            precision.unscale(optimizer)
            assert model.weight.grad is not None
            assert float(model.weight.grad) == 1.0
            precision.stepper(optimizer)()
        precision.update()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["fp32", "bf16", "fp16"])
def test_every_precision_trains_on_a_cuda_device(kind: str) -> None:
    ours, reference = small_model().cuda(), small_model()
    train(precision_of(kind, "cuda"), ours, [(x.cuda(), y.cuda()) for x, y in small_batches()])
    by_hand("fp32", reference, small_batches())
    torch.testing.assert_close(weights(ours).cpu(), weights(reference), rtol=0.0, atol=2e-2)


def test_the_scale_goes_on_where_it_was() -> None:
    def run(cut: int | None) -> tuple[torch.Tensor, dict[str, object]]:
        model, batches = small_model(), small_batches()
        precision = ScaledFloat16(initial_scale=2.0**30, growth_interval=2)
        if cut is None:
            train(precision, model, batches)
            return weights(model), precision.state_dict()
        train(precision, model, batches[:cut])
        resumed = ScaledFloat16()
        resumed.load_state_dict(copy.deepcopy(precision.state_dict()))
        train(resumed, model, batches[cut:])
        return weights(model), resumed.state_dict()

    for cut in range(6):
        # Momentum starts anew at the cut in both, so only the scaler is compared.
        assert run(cut)[1] == run(None)[1]
    assert Precision().state_dict() == {}
    Precision().load_state_dict({})


def test_state_is_plain_numbers() -> None:
    assert all(type(value) in (int, float) for value in ScaledFloat16().state_dict().values())


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("fp32", "fp32"),
        ("32", "fp32"),
        (32, "fp32"),
        ("bf16-mixed", "bf16"),
        ("fp16-mixed", "fp16"),
        (16, "fp16"),
    ],
)
def test_names_of_other_trainers_are_understood(given: str | int, name: str) -> None:
    assert precision_of(given).name == name


def test_an_object_is_taken_as_it_is() -> None:
    precision = ScaledFloat16(growth_interval=5)
    assert precision_of(precision, "cpu") is precision


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: precision_of("fp8"), ValueError, "precision is 'fp8'; allowed are 'fp32', 'bf16', 'fp16'"),
        (lambda: precision_of(64), ValueError, "precision is 64; allowed are"),
        (lambda: precision_of(BFloat16), TypeError, "allowed are 'fp32'"),
        (lambda: precision_of(None), TypeError, "precision is None; allowed are"),
        (lambda: precision_of("bf16", "meta"), ValueError, "no autocast for the device type 'meta'"),
        (lambda: ScaledFloat16(backoff_factor=2.0), ValueError, "0 < backoff_factor < 1"),
    ],
)
def test_a_wrong_precision_says_what_is_allowed(
    make: Callable[[], Precision], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        make()
