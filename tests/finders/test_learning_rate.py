"""The search for a learning rate: which rates, when it stops, what it suggests and shows."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

import treadle
from treadle.finders import Finding, find_learning_rate

INPUTS = torch.randn(12, 2, generator=torch.Generator().manual_seed(1))
PLAIN = (INPUTS, INPUTS.sum(1, keepdim=True))


def trainer_for(**options: Any) -> treadle.Trainer:
    return treadle.Trainer(max_epochs=1, seed=0, run_dir=None, checkpoint=None, progress=False, **options)


def linear_task(loss: Any = mse_loss, **options: Any) -> treadle.SupervisedTask:
    torch.manual_seed(0)
    return treadle.SupervisedTask(nn.Linear(2, 1), loss, torch.optim.SGD, lr=0.1, **options)


def test_d4_rates_and_losses_are_those_of_a_plain_loop() -> None:
    """Times 1.25 a batch, over as many epochs as it takes, to three times the minimum."""
    finding = find_learning_rate(
        trainer_for(), linear_task(), treadle.Loader(PLAIN, 4), low=1e-4, factor=1.25, high=100
    )
    model = linear_task().model
    rate, rates, losses = 1e-4, [], []
    while True:
        start = 4 * (len(rates) % 3)
        loss = mse_loss(model(PLAIN[0][start : start + 4]), PLAIN[1][start : start + 4])
        rates.append(rate)
        losses.append(float(loss.detach()))
        if losses[-1] > 3 * min(losses):
            break
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter -= rate * gradient
        rate *= 1.25
    assert finding.rates == pytest.approx(rates)
    assert finding.losses == pytest.approx(losses)
    assert finding.smoothed == finding.losses
    assert finding.reason.startswith("the loss is over 3 times its minimum")
    assert finding.suggestion == pytest.approx(rates[losses.index(min(losses))] / 10)
    assert finding.rates[0] < finding.steepest <= finding.lowest


def test_d4_it_stops_on_a_loss_that_is_not_finite() -> None:
    calls: list[int] = []

    def breaking(output: Tensor, target: Tensor) -> Tensor:
        calls.append(1)
        return mse_loss(output, target) * (float("nan") if len(calls) == 6 else 1.0)

    finding = find_learning_rate(trainer_for(), linear_task(breaking), PLAIN, low=1e-5)
    assert len(finding.rates) == 6 == len(calls)
    assert finding.reason == "the loss is nan at 3.05e-05"
    assert finding.suggestion > 0
    assert "suggestion" in str(finding)
    with pytest.raises(ValueError, match="train/loss is inf before the first step"):
        find_learning_rate(
            trainer_for(), linear_task(lambda o, t: (o / 0).abs().mean() + 1 / o.new_zeros(())), PLAIN
        )


def test_it_ends_with_the_highest_rate() -> None:
    finding = find_learning_rate(trainer_for(), linear_task(), PLAIN, low=1e-6, high=1e-3, factor=10)
    assert finding.rates == pytest.approx([1e-6, 1e-5, 1e-4, 1e-3])
    assert finding.reason == "all rates up to 0.001 tried"


def test_a_negative_loss_may_fall_and_rise() -> None:
    """Three times a negative minimum would be below it: the distance above it counts."""
    losses = iter([-1.0, -2.0, -1.0, 1.0, 3.0, 9.0])
    task = linear_task(lambda output, target: output.mean() * 0 + next(losses))
    finding = find_learning_rate(trainer_for(), task, PLAIN)
    assert finding.losses == [-1.0, -2.0, -1.0, 1.0, 3.0]


def test_smoothing_is_a_moving_average_corrected_for_its_beginning() -> None:
    losses = iter([4.0, 2.0, 3.0, 1.0])
    task = linear_task(lambda output, target: output.mean() * 0 + next(losses))
    finding = find_learning_rate(trainer_for(), task, PLAIN, low=0.1, high=0.8, factor=2, smoothing=0.5)
    weights = [[1], [1, 2], [1, 2, 4], [1, 2, 4, 8]]
    expected = [sum(w * x for w, x in zip(ws, [4, 2, 3, 1], strict=False)) / sum(ws) for ws in weights]
    assert finding.smoothed == pytest.approx(expected)


def test_accumulation_and_groups_keep_their_meaning() -> None:
    """A step is an optimizer step; a group with half the rate keeps half."""
    seen: list[tuple[float, float]] = []

    class Watching(treadle.SupervisedTask):
        def configure_optimizers(self) -> Any:
            layer = self.model
            groups = [{"params": [layer.weight], "lr": 0.1}, {"params": [layer.bias], "lr": 0.2}]
            return torch.optim.SGD(groups, lr=1.0)

        def optimizer_step(self, state: treadle.State) -> None:
            seen.append(tuple(group["lr"] for group in self.optimizers["optimizer"].param_groups))
            super().optimizer_step(state)

    task = Watching(nn.Linear(2, 1), mse_loss)
    train = treadle.Loader(PLAIN, 2)
    finding = find_learning_rate(
        trainer_for(accumulate=3), task, train, low=0.01, high=0.08, factor=2, stop_at=99
    )
    assert finding.rates == pytest.approx([0.01, 0.02, 0.04, 0.08])
    assert torch.tensor(seen).flatten().tolist() == pytest.approx(
        [0.005, 0.01, 0.01, 0.02, 0.02, 0.04, 0.04, 0.08]
    )


def test_after_a_fit_with_a_schedule_the_first_rate_is_the_lowest() -> None:
    task = linear_task(scheduler=treadle.schedules.LinearDecay(2))
    trainer_for().fit(task, treadle.Loader(PLAIN, 2))
    finding = find_learning_rate(trainer_for(), task, PLAIN, low=0.01, high=0.1, factor=2)
    assert finding.rates == pytest.approx([0.01, 0.02, 0.04, 0.08])


class TwoOptimizers(treadle.SupervisedTask):
    def configure_optimizers(self) -> Any:
        layer = self.model
        return {name: torch.optim.SGD([getattr(layer, name)], lr=0.1) for name in ("weight", "bias")}


def test_one_of_several_optimizers_is_named() -> None:
    task = TwoOptimizers(nn.Linear(2, 1), mse_loss)
    with pytest.raises(ValueError, match=r"give as optimizer one of \['weight', 'bias'\]"):
        find_learning_rate(trainer_for(), task, PLAIN)
    with pytest.raises(ValueError, match="there is no optimizer 'other'"):
        find_learning_rate(trainer_for(), task, PLAIN, optimizer="other")
    assert find_learning_rate(trainer_for(), task, PLAIN, optimizer="bias", low=1e-3).rates[0] == 1e-3
    assert task.optimizers == {}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"low": 0.0}, "low=0.0"),
        ({"low": 1.0, "high": 0.1}, "0 < low < high"),
        ({"factor": 1.0}, "factor is 1.0; it must be above 1"),
        ({"stop_at": 1}, "stop_at is 1"),
        ({"smoothing": 1.0}, "smoothing is 1.0"),
        ({"monitor": "train/typo"}, r"nothing is logged as 'train/typo'.*'train/loss'"),
    ],
)
def test_wrong_arguments_are_said(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        find_learning_rate(trainer_for(), linear_task(), PLAIN, **options)


FINDING = Finding([0.1, 0.2, 0.4, 0.8], [2.0, 1.0, 0.5, 4.0], [2.0, 1.5, 0.9, 3.0], "over")


def test_the_picture_in_text() -> None:
    lines = str(FINDING).splitlines()
    assert lines[0] == "learning rate: 0.04 suggested (over)"
    assert lines[1].endswith("<- suggestion")
    assert [line.count("=") for line in lines[1:]] == [27, 15, 1, 50]


def test_plot_without_matplotlib_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"text\) need matplotlib: pip install 'treadle\[plots\]'"):
        FINDING.plot()


def test_plot_is_a_figure_with_a_logarithmic_axis() -> None:
    pytest.importorskip("matplotlib")
    axes = FINDING.plot().axes[0]
    assert axes.get_xscale() == "log"
    assert [len(line.get_xdata()) for line in axes.lines] == [4, 4, 2]


@pytest.mark.slow
def test_d4_on_digits_the_suggestion_trains() -> None:
    """From 1e-4, as nntrain does it: about 0.2 for plain gradient descent on a small network."""
    sklearn = pytest.importorskip("sklearn.datasets")
    digits = sklearn.load_digits()
    inputs, targets = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 50), nn.ReLU(), nn.Linear(50, 10))
    task = treadle.SupervisedTask(model, cross_entropy, torch.optim.SGD, lr=1.0)
    train = treadle.Loader((inputs, targets), 32, shuffle=True)
    finding = find_learning_rate(trainer_for(), task, train, low=1e-4)
    assert 0.05 < finding.suggestion < 0.5
    tuned = treadle.SupervisedTask(model, cross_entropy, partial(torch.optim.SGD, lr=finding.suggestion))
    assert trainer_for().replace(max_epochs=3).fit(tuned, train).history["train/loss"][-1] < 1.5
