"""Averages of the weights: what they are, that they are evaluated and saved, and that training goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import swa_utils

import treadle
from treadle.callbacks import ExponentialMovingAverage, StochasticWeightAveraging, WeightAveraging
from treadle.checkpoint import read, weights_sha256

STEPS = treadle.Every(steps=1)


class Weights(treadle.Callback):
    """The weights after each step, while training and while evaluating."""

    def __init__(self) -> None:
        self.trained: list[dict[str, Tensor]] = []
        self.evaluated: list[dict[str, Tensor]] = []

    def on_step_end(self, state: treadle.State) -> None:
        self.trained.append({n: v.clone() for n, v in state.task.state_dict().items()})

    def on_eval_batch_end(self, state: treadle.State) -> None:
        self.evaluated.append({n: v.clone() for n, v in state.task.state_dict().items()})


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_the_exponential_average_is_that_of_torch(fit: Callable[..., Any]) -> None:
    weights, average = Weights(), ExponentialMovingAverage(0.8)
    _, task = fit([weights, average])
    reference = swa_utils.AveragedModel(
        task, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.8), use_buffers=True
    )
    copy = type(task)(task.model, nn.CrossEntropyLoss())
    for step in weights.trained:
        copy.load_state_dict(step)
        reference.update_parameters(copy)
    expected = reference.module.state_dict()
    assert average.count == 12
    for name, value in average.averages().items():
        if value.is_floating_point():  # torch averages counts too; here they are the last ones
            assert torch.allclose(value, expected[name], atol=1e-6), name
    assert average.averages()["model.1.num_batches_tracked"] == 12


def test_averages_are_evaluated_and_training_does_not_notice(fit: Callable[..., Any]) -> None:
    weights, average = Weights(), ExponentialMovingAverage(0.9, replace_at_end=False)
    run, task = fit([weights, average])
    bare_weights = Weights()
    bare, _ = fit([bare_weights])
    assert run.weights_sha256 == bare.weights_sha256
    assert run.history["train/loss"] == bare.history["train/loss"]
    assert run.history["val/loss"] != bare.history["val/loss"]
    assert equal(weights.evaluated[-1], average.averages())
    trainer = treadle.Trainer(max_epochs=1, run_dir=None, progress=False, callbacks=[average], device="cpu")
    inputs, targets = torch.randn(9, 5), torch.arange(9) % 3
    before = trainer.evaluate(task, (inputs, targets))
    task.load_state_dict(average.averages())  # outside a fit nothing is put in place by itself
    assert trainer.evaluate(task, (inputs, targets)) != before


def test_averages_do_not_depend_on_how_often_somebody_looks(fit: Callable[..., Any]) -> None:
    seldom, often = ExponentialMovingAverage(0.9), ExponentialMovingAverage(0.9)
    fit([seldom], eval_every=None)
    fit([often], eval_every=treadle.Every(steps=1))
    assert equal(seldom.averages(), often.averages())
    assert seldom.count == often.count == 12

    class Cancel(treadle.Callback):
        def on_batch_start(self, state: treadle.State) -> None:
            if state.current_step in (3, 8, 12):
                raise treadle.CancelStep

    fit([seldom, Cancel()], eval_every=None)
    fit([often, Cancel()], eval_every=treadle.Every(steps=1))
    assert equal(seldom.averages(), often.averages())
    assert seldom.count == often.count == 9


@pytest.mark.parametrize(
    "make",
    [
        lambda: [ExponentialMovingAverage(0.9, ramp=True)],
        lambda: [StochasticWeightAveraging(start=0.3)],
        lambda: [WeightAveraging(start=3, every=treadle.Every(steps=2), replace_at_end=False)],
    ],
)
def test_averages_survive_a_restart(resumes_exactly: Callable[..., Any], make: Callable[[], Any]) -> None:
    run, task = resumes_exactly(make, cuts=(3, 4, 9))
    assert run.weights_sha256 == weights_sha256(task.state_dict())


def test_the_plain_average_is_the_mean(fit: Callable[..., Any]) -> None:
    weights, average = Weights(), WeightAveraging(start=4, every=treadle.Every(steps=3))
    _, task = fit([weights, average])
    taken = [weights.trained[step - 1]["model.0.weight"] for step in (6, 9, 12)]
    assert torch.allclose(average.averages()["model.0.weight"], torch.stack(taken).mean(0), atol=1e-6)
    assert equal(dict(task.state_dict()), average.averages())  # replaced at the end


def test_stochastic_weight_averaging_takes_the_ends_of_the_last_epochs(fit: Callable[..., Any]) -> None:
    weights, average = Weights(), StochasticWeightAveraging(start=0.5)
    fit([weights, average], max_epochs=4)
    taken = [weights.trained[step - 1]["model.0.weight"] for step in (12, 16)]
    assert torch.allclose(average.averages()["model.0.weight"], torch.stack(taken).mean(0), atol=1e-6)
    # An epoch is taken in before it is evaluated.
    assert equal(weights.evaluated[-1], average.averages())


def test_checkpoints_hold_the_weights_and_the_averages(fit: Callable[..., Any]) -> None:
    average = ExponentialMovingAverage(0.5)
    run, task = fit([average], "run")
    contents = read(run.checkpoints[-1])
    saved = contents["callbacks"]["ExponentialMovingAverage"]
    assert equal(saved["averages"], average.averages())
    assert saved["count"] == 12
    assert contents["model"]["model.0.weight"].ne(task.state_dict()["model.0.weight"]).any()
    # A longer run goes on from the weights, not from the averages.
    longer, _ = fit([ExponentialMovingAverage(0.5)], "run", resume=run.path, max_epochs=4)
    whole, _ = fit([ExponentialMovingAverage(0.5)], max_epochs=4)
    assert longer.weights_sha256 == whole.weights_sha256


def test_batch_norm_statistics_are_measured_anew(fit: Callable[..., Any]) -> None:
    generator = torch.Generator().manual_seed(4)
    data = (torch.randn(26, 5, generator=generator), torch.arange(26) % 3)
    loader = treadle.Loader(data, 13, shuffle=True)
    weights = Weights()
    average = StochasticWeightAveraging(start=0.3, batch_norm_data=loader)
    _, task = fit([weights, average])
    reference = type(task)(task.model, nn.CrossEntropyLoss())
    reference.load_state_dict(average.averages())
    swa_utils.update_bn([data[0][:13], data[0][13:]], reference.model)
    for name in ("model.1.running_mean", "model.1.running_var"):
        assert torch.allclose(task.state_dict()[name], reference.state_dict()[name], atol=1e-6)
        assert torch.allclose(weights.evaluated[-1][name], task.state_dict()[name], atol=1e-6)
    assert task.model[1].momentum == 0.1
    kept = StochasticWeightAveraging(start=0.3, batch_norm_data=loader, replace_at_end=False)
    assert fit([kept])[0].weights_sha256 == fit()[0].weights_sha256


class Fail(treadle.Callback):
    def on_eval_batch_end(self, state: treadle.State) -> None:
        raise RuntimeError("failed on purpose")


class Leave(treadle.Callback):
    def on_eval_batch_end(self, state: treadle.State) -> None:
        raise treadle.CancelFit


def test_weights_come_back_when_an_evaluation_is_cut_off(fit: Callable[..., Any]) -> None:
    plain = fit(max_epochs=1)[0].weights_sha256

    class Seen(treadle.Callback):
        sha = ""

        def on_exception(self, state: treadle.State) -> None:
            self.sha = weights_sha256(state.task.state_dict())

    seen = Seen()
    task = fit(max_steps=0)[1]
    with pytest.raises(RuntimeError, match="on purpose"):
        fit([ExponentialMovingAverage(), Fail(), seen], task=task)
    assert seen.sha == weights_sha256(task.state_dict()) == plain
    run, task = fit([ExponentialMovingAverage(), Leave()])
    assert run.weights_sha256 == plain


def test_half_precision_weights_are_averaged_in_single(fit: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    model = nn.Linear(5, 3).bfloat16()
    task = treadle.SupervisedTask(model, nn.CrossEntropyLoss(), torch.optim.SGD, lr=1e-3)
    data = (torch.randn(26, 5).bfloat16(), torch.arange(26) % 3)
    average = ExponentialMovingAverage(0.999)
    fit([average], task=task, train=data, val=data)
    assert average.averages()["model.weight"].dtype == torch.float32
    assert model.weight.dtype == torch.bfloat16


def test_averages_in_place_on_request(fit: Callable[..., Any]) -> None:
    average = ExponentialMovingAverage(0.5)

    class Look(treadle.Callback):
        def on_epoch_end(self, state: treadle.State) -> None:
            before = weights_sha256(state.task.state_dict())
            with average.in_place(state):
                assert equal(dict(state.task.state_dict()), average.averages())
            assert weights_sha256(state.task.state_dict()) == before

    fit([average, Look()])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: WeightAveraging(start=-1), "start is -1"),
        (lambda: WeightAveraging(start=1.5), "start is 1.5"),
        (lambda: WeightAveraging(every=treadle.Every(seconds=1)), "every is"),
        (lambda: WeightAveraging(every=treadle.Every(steps=1, epochs=1)), "every is"),
        (lambda: ExponentialMovingAverage(1.0), "decay is 1.0"),
    ],
)
def test_averaging_checks_its_arguments(make: Callable[[], treadle.Callback], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


def test_a_part_of_a_run_needs_its_length(fit: Callable[..., Any]) -> None:
    def stream() -> Any:
        yield from ((torch.ones(5), 0) for _ in range(8))

    with pytest.raises(ValueError, match="length of the run is not known"):
        fit([StochasticWeightAveraging()], train=treadle.Loader(stream, 4))
    run, _ = fit([ExponentialMovingAverage()], "run")
    other = treadle.SupervisedTask(nn.Linear(5, 3), nn.CrossEntropyLoss(), torch.optim.SGD, lr=0.1)
    average = ExponentialMovingAverage()
    average.load_state_dict(read(run.checkpoints[-1])["callbacks"]["ExponentialMovingAverage"])

    class Later(treadle.Callback):
        order = -1000.0

        def on_fit_start(self, state: treadle.State) -> None:
            state.progress.step = 1

    with pytest.raises(ValueError, match="averages are of another task"):
        fit([Later(), average], task=other)
