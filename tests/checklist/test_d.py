"""Rows D: a learner with events, cancelling, metrics, a rate finder, and data from Hugging Face."""

# ruff: noqa: N802 - the capital letter and number are the row that the test shows

from __future__ import annotations

import copy
import io
import itertools
import json
import math
import sys
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import OneCycleLR

import treadle
from examples import fashion_mnist
from treadle import callbacks
from treadle.callbacks.live_progress import NotebookProgress, TerminalProgress
from treadle.data.datasets import FASHION_MNIST_FOLDER
from treadle.finders import find_learning_rate
from treadle.metrics import Accuracy
from treadle.report import draw as draw_curves

ROOT = Path(__file__).parents[2]
WITH_CLOTHES = pytest.mark.skipif(
    not FASHION_MNIST_FOLDER.is_dir(), reason="needs Debian's dataset-fashion-mnist"
)
SIGNALS = {
    "batch": treadle.CancelBatch,
    "step": treadle.CancelStep,
    "epoch": treadle.CancelEpoch,
    "fit": treadle.CancelFit,
}


def test_D1_a_learner(make_model, make_trainer, data) -> None:
    class Count(treadle.Callback):
        epochs = 0

        def on_epoch_end(self, state: treadle.State) -> None:
            self.epochs += 1

    always, once = Count(), Count()
    learner = treadle.SupervisedTask(make_model(), cross_entropy, torch.optim.SGD, lr=0.1)
    runner = make_trainer(max_epochs=2, callbacks=[always])
    runner.fit(learner, data, data, callbacks=[once])
    for optimizer in learner.optimizers.values():  # another rate for the next fit
        for group in optimizer.param_groups:
            group["lr"] = 0.02
    run = runner.replace(max_epochs=3).fit(learner, data, data)
    assert run.history["learning_rate"] == [0.02] * 3
    assert (always.epochs, once.epochs) == (5, 2)


def test_D1_predict_loss_backward_step_and_zero_grad_are_methods(make_task, make_trainer, data) -> None:
    said: list[str] = []

    class Learner(treadle.SupervisedTask):
        def forward(self, inputs: Any) -> Any:
            said.append(f"predict {torch.is_grad_enabled()}")
            return super().forward(inputs)

        def compute_loss(self, batch: Any, state: treadle.State) -> Any:
            said.append("get_loss")
            return super().compute_loss(batch, state)

        def backward(self, loss: Any, share: Any, state: treadle.State) -> None:
            said.append("backward")
            super().backward(loss, share, state)

        def optimizer_step(self, state: treadle.State) -> None:
            said.append("step")
            super().optimizer_step(state)

        def zero_grad(self, set_to_none: bool = True) -> None:
            said.append("zero_grad")
            super().zero_grad(set_to_none)

    make_trainer(max_epochs=1).fit(make_task(Learner), data, data)
    training = ["get_loss", "predict True", "backward", "step", "zero_grad"]
    assert said[:7] == [*training, "get_loss", "predict False"]  # validation has no gradients


def test_D2_events_in_order(make_task, make_trainer, data) -> None:
    said: list[str] = []
    runner = make_trainer(max_epochs=2)
    training = [
        "step_start",
        "batch_start",
        "after_forward",
        "after_loss",
        "after_backward",
        "batch_end",
        "after_optimizer_step",
        "step_end",
    ]
    evaluating = ["eval_start", "eval_batch_start", "eval_batch_end", "eval_end"]
    for event in ["fit_start", "epoch_start", *training, *evaluating, "epoch_end", "fit_end"]:
        runner.on(event)(lambda state, event=event: said.append(event))

    @runner.on("after_optimizer_step")
    def gradients_are_cleared_later(state: treadle.State) -> None:
        assert all(parameter.grad is not None for parameter in state.task.parameters())

    @runner.on("step_end")
    def gradients_are_cleared(state: treadle.State) -> None:
        assert all(parameter.grad is None for parameter in state.task.parameters())

    runner.fit(make_task(), treadle.Loader(data, 13), treadle.Loader(data, 26))
    look = ["eval_start", "eval_batch_start", "after_forward", "eval_batch_end", "eval_end"]
    epoch = ["epoch_start", *training, *training, *look, "epoch_end"]
    assert said == ["fit_start", *epoch, *epoch, "fit_end"]


def test_D2_subscribers_are_ordered_and_equal_ones_stay_as_given(make_task, make_trainer, data) -> None:
    said: list[str] = []
    runner = make_trainer(max_epochs=1)
    for name, order in (("late", 1), ("a", 0), ("b", 0), ("early", -1), ("c", 0)):
        runner.on("fit_start", order=order)(lambda state, name=name: said.append(name))
    runner.fit(make_task(), data)
    assert said == ["early", "a", "b", "c", "late"]


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize(
    "hook", ["batch_start", "after_forward", "after_loss", "after_backward", "step_start"]
)
def test_D3_any_subscriber_cancels(make_task, make_trainer, data, hook: str, signal: str) -> None:
    times = [0]
    runner = make_trainer()

    @runner.on(hook)
    def cancel(state: treadle.State) -> None:
        times[0] += state.mode == "train"
        if times[0] == 2 and state.mode == "train":
            raise SIGNALS[signal]("enough")

    run = runner.fit(make_task(), treadle.Loader(data, 8), data)
    batches = len(run.series("train/loss").steps) if signal in ("epoch", "fit") else run.step
    assert batches == {"batch": 8, "step": 8, "epoch": 1 + 4, "fit": 1}[signal]
    assert run.status == ("stopped" if signal == "fit" else "finished")


WHOLE = ("eval_start", "eval_end", "epoch_end")  # no batch is under way there


@pytest.mark.parametrize(
    ("hook", "signal"),
    [
        *itertools.product(("eval_batch_start", "eval_batch_end"), SIGNALS),
        *itertools.product(WHOLE, ("epoch", "fit")),
    ],
)
def test_D3_also_while_validating_and_at_the_end(
    make_task, make_trainer, data, hook: str, signal: str
) -> None:
    runner = make_trainer()

    @runner.on(hook)
    def cancel(state: treadle.State) -> None:
        raise SIGNALS[signal]("enough")

    run = runner.fit(make_task(), data, treadle.Loader(data, 8))
    assert run.status == ("stopped" if signal == "fit" else "finished")
    assert run.epoch == (1 if signal == "fit" else 2)


def test_D3_cancelling_the_training_epoch_still_validates(make_task, make_trainer, data) -> None:
    runner = make_trainer()

    @runner.on("step_end")
    def cancel(state: treadle.State) -> None:
        raise treadle.CancelEpoch

    run = runner.fit(make_task(), treadle.Loader(data, 8), data)
    assert (run.epoch, run.step) == (2, 2)
    assert len(run.history["val/loss"]) == 2


def test_D4_metrics_a_row_for_each_mode_weighted_by_samples(make_task, make_trainer, data) -> None:
    torcheval = pytest.importorskip("torcheval.metrics")
    torchmetrics = pytest.importorskip("torchmetrics.classification")
    metrics = {
        "own": Accuracy(),
        "eval": torcheval.MulticlassAccuracy(),
        "metrics": torchmetrics.MulticlassAccuracy(3, average="micro"),
        "function": lambda output, target: (output.argmax(1) == target).float().mean(),
    }
    task, runner = make_task(metrics=metrics), make_trainer()
    row = runner.fit(
        task, treadle.Loader(data, 8), treadle.Loader(data, 7), also={"full": data}
    ).history.last()
    scores = task.eval()(data[0])
    right = (scores.argmax(1) == data[1]).double().mean().item()
    for mode in ("val", "full"):
        assert [row[f"{mode}/{name}"] for name in metrics] == pytest.approx([right] * 4)
        assert row[f"{mode}/loss"] == pytest.approx(cross_entropy(scores, data[1]).item(), rel=1e-5)
    assert [row[f"train/{name}"] for name in metrics] == pytest.approx([row["train/own"]] * 4)


def test_D4_batches_are_moved_to_the_device(make_task, make_trainer, data) -> None:
    devices: set[str] = set()
    runner = make_trainer(device="auto")
    runner.on("batch_start")(lambda state: devices.add(state.batch[0].device.type))
    runner.fit(make_task(), data)
    assert devices == {runner.device.type}


def test_D4_the_rate_finder(make_task, make_trainer, data) -> None:
    finding = find_learning_rate(make_trainer(), make_task(), treadle.Loader(data, 8), low=1e-4)
    ratios = np.array(finding.rates[1:]) / np.array(finding.rates[:-1])
    assert finding.rates[0] == pytest.approx(1e-4)
    assert ratios == pytest.approx([1.25] * len(ratios))
    best = min(finding.losses[:-1])
    assert finding.losses[-1] > 3 * best or finding.rates[-1] > 10 / 1.25
    assert finding.rates[0] < finding.suggestion < finding.lowest
    assert "<- suggestion" in str(finding)  # the plot, in text


def test_D4_the_rate_finder_plots_on_a_log_axis(make_task, make_trainer, data) -> None:
    pytest.importorskip("matplotlib")
    figure = find_learning_rate(make_trainer(), make_task(), data).plot()
    assert figure.axes[0].get_xscale() == "log"


class Fading(treadle.SupervisedTask):
    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad *= 0.85


def test_D4_momentum_by_overriding_zero_grad_is_momentum(make_task, make_trainer, data) -> None:
    loader = treadle.Loader(data, 8, shuffle=True)
    faded, known = make_task(Fading), make_task(optimizer=partial(torch.optim.SGD, momentum=0.85))
    for task in (faded, known):
        make_trainer(max_epochs=4).fit(task, loader)
    for one, other in zip(faded.parameters(), known.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_D4_bars_and_a_live_table(make_task, make_trainer, data) -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    clock = itertools.count(0, 1)
    shown = TerminalProgress(console, clock=lambda: next(clock))
    task = make_task(metrics={"accuracy": Accuracy()})
    make_trainer(callbacks=[shown], log_every=1).fit(task, treadle.Loader(data, 8), data)
    output = console.file.getvalue()
    assert "━" in output  # bars
    heads = next(line for line in output.splitlines() if "accuracy" in line and "epoch" in line)
    assert "loss" in heads
    assert output.count("val   ") == 2  # a row for each mode and epoch


def test_D4_a_live_plot_of_the_loss_in_a_notebook(make_task, make_trainer, data, monkeypatch) -> None:
    """In a notebook: one picture that is replaced after each epoch."""
    plots: list[str] = []
    module = ModuleType("IPython.display")
    module.display = lambda thing, display_id=False: SimpleNamespace(update=plots.append)
    module.HTML = str
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    display = NotebookProgress(Console(file=io.StringIO(), force_jupyter=True))
    make_trainer(max_epochs=3, callbacks=[display]).fit(make_task(), data, data)
    drawn = [plot for plot in plots if isinstance(plot, str) and 'aria-label="loss"' in plot]
    assert len(drawn) == 3
    assert "val/loss" in drawn[-1]


def test_D4_a_live_plot_of_the_loss(make_task, make_trainer, data, tmp_path) -> None:
    drawn: list[str] = []
    runner = make_trainer(max_epochs=5, run_dir=tmp_path / "run", log_every=1)

    @runner.on("epoch_end")
    def draw(state: treadle.State) -> None:  # as `treadle watch` does, from another process
        state.run.flush()
        drawn.append(draw_curves(treadle.Run.open(tmp_path / "run"), names=["train/loss", "val/loss"]))

    runner.fit(make_task(), treadle.Loader(data, 8, shuffle=True), data)
    assert all("running" in picture and "loss" in picture for picture in drawn)
    assert drawn[1].count("*") > 3
    assert len(set(drawn)) == 5  # each with what has come since


def spread(name: str, epoch: int, column: int) -> tuple[float, float]:
    seeds = json.loads((ROOT / "docs/reproduced.json").read_text())["fashion"][name]
    values = [rows[epoch][column] for rows in seeds]
    return min(values), max(values)


@pytest.mark.parametrize(
    ("name", "originals"),
    [
        ("SGD", [(2.078, 0.378), (1.802, 0.538), (1.543, 0.601), (1.346, 0.639), (1.207, 0.651)]),
        ("momentum", [(1.105, 0.647), (0.831, 0.695), (0.736, 0.739), (0.675, 0.766), (0.634, 0.779)]),
    ],
)
def test_D4_numbers_of_five_epochs_lie_in_the_recorded_spread(name: str, originals: Any) -> None:
    for epoch, original in enumerate(originals):
        for column, value in enumerate(original):
            low, high = spread(name, epoch, column)
            assert low - 0.0005 <= value <= high + 0.0005, (epoch + 1, column)  # given to three digits


@WITH_CLOTHES
@pytest.mark.parametrize(
    ("name", "original"),
    [("SGD", (2.078, 0.378)), ("momentum", (1.105, 0.647))],
)
def test_D4_numbers_of_the_first_epoch(name: str, original: tuple[float, float]) -> None:
    """One epoch of one seed, in the spread of the recorded ten, as is the original's."""
    clothes, unseen = treadle.data.FashionMNIST(), treadle.data.FashionMNIST(split="test")
    quiet = {"run_dir": None, "progress": False, "device": "cpu"}
    momentum = name == "momentum"
    row = fashion_mnist.train(clothes, unseen, epochs=1, momentum=momentum, seed=1, **quiet).history.last()
    for column, value in enumerate((row["val/loss"], row["val/accuracy"])):
        low, high = spread(name, 0, column)
        assert low * 0.98 <= value <= high * 1.02
        assert low <= original[column] <= high


@WITH_CLOTHES
def test_D4_the_rate_finder_on_clothes() -> None:
    """The original's 0.2 lies between the suggestion, a tenth of the lowest, and the lowest itself."""
    torch.manual_seed(0)
    loader = treadle.Loader(treadle.data.FashionMNIST(), 1024, shuffle=True)
    runner = treadle.Trainer(max_epochs=1, run_dir=None, progress=False, seed=0, device="cpu")
    finding = find_learning_rate(runner, fashion_mnist.Clothes(), loader, low=1e-4)
    assert 0.02 < finding.suggestion < 0.2 < finding.lowest < 2


class Columns:
    """The face of a Hugging Face dataset."""

    def __init__(self, table: dict[str, list[Any]]) -> None:
        self.table = table
        self.format = {"type": None, "columns": list(table)}

    def __len__(self) -> int:
        return len(self.table["label"])

    def with_format(self, form: str, columns: Any, dtype: Any) -> Columns:
        return self

    def __getitem__(self, indices: Any) -> dict[str, Any]:
        return {key: np.array([column[i] for i in indices]) for key, column in self.table.items()}


Columns.__module__ = "datasets.arrow_dataset"


def test_D5_loaders_from_a_dataset_dictionary(make_task, make_trainer) -> None:
    def table(rows: int) -> Columns:
        pixels = [np.full((2, 2), row % 3, dtype=np.float32) for row in range(rows)]
        return Columns({"image": pixels, "label": [row % 3 for row in range(rows)]})

    splits = treadle.data.loaders({"train": table(30), "test": table(12)}, batch_size=4)
    assert (splits["train"].batch_size, splits["train"].shuffle) == (4, True)
    assert (splits["test"].batch_size, splits["test"].shuffle) == (8, False)

    class Flat(treadle.SupervisedTask):
        def prepare_batch(self, batch: Any) -> Any:
            return batch["image"].flatten(1), batch["label"]

    run = make_trainer(max_epochs=20).fit(make_task(Flat), splits["train"], splits["test"])
    assert run.history["val/loss"][-1] < 0.7 * run.history["val/loss"][0]


def test_D5_collation_with_flattening_and_seeds(data) -> None:
    def flatten(samples: list[Any]) -> Any:
        return torch.stack([x.flatten() for x, _ in samples]), torch.stack([y for _, y in samples])

    pictures = torch.arange(80.0).reshape(20, 2, 2)
    samples = list(zip(pictures, torch.arange(20), strict=True))
    orders = []
    for seed in (1, 1, 2):
        batches = list(treadle.Loader(samples, 8, shuffle=True, seed=seed, collate=flatten))
        assert batches[0][0].shape == (8, 4)
        orders.append(torch.cat([y for _, y in batches]).tolist())
    assert orders[0] == orders[1] != orders[2]


def test_D5_forward_hooks_and_activation_statistics(make_task, make_trainer, data) -> None:
    watch = callbacks.ActivationStatistics(["model.1"], treadle.Every(steps=1))
    task = make_task()
    before = task.model[0](data[0]).relu()
    run = make_trainer(max_epochs=1, callbacks=[watch], log_every=1).fit(task, treadle.Loader(data, 26))
    assert run.series("activation/model.1/mean").values[0] == pytest.approx(before.mean().item(), rel=1e-4)
    dead = (before == 0).float().mean().item()
    assert run.series("activation/model.1/dead").values[0] == pytest.approx(dead)
    assert not task.model[1]._forward_hooks


def test_D5_schedulers_for_each_step(make_task, make_trainer, data) -> None:
    schedule = treadle.Schedule(partial(OneCycleLR, max_lr=0.4, total_steps=8), every="step")
    monitor = callbacks.LearningRateMonitor()
    task = make_task(scheduler=schedule, optimizer=partial(torch.optim.SGD, momentum=0.9))
    run = make_trainer(callbacks=[monitor]).fit(task, treadle.Loader(data, 8))
    rates = run.series("learning_rate").values.tolist()
    assert len(set(rates)) == 8
    assert max(rates) == pytest.approx(0.4, rel=0.1)


def test_D5_augmentation_on_the_device(make_task, make_trainer, data) -> None:
    seen: list[tuple[str, bool]] = []

    def jitter(batch: Any) -> Any:
        return batch[0] + 0.1 * torch.randn_like(batch[0]), batch[1]

    runner = make_trainer(max_epochs=1, callbacks=[callbacks.DeviceAugmentation(jitter)])
    runner.on("after_forward")(lambda s: seen.append((s.mode, torch.equal(s.batch[0], data[0]))))
    runner.fit(make_task(), treadle.Loader(data, 26), data)
    assert seen == [("train", False), ("val", True)]


def test_D5_parameters_and_macs_for_each_layer(make_task, make_trainer, data) -> None:
    console = Console(file=io.StringIO(), width=120)
    make_trainer(callbacks=[callbacks.Summary(console=console)]).fit(make_task(), data)
    lines = console.file.getvalue().splitlines()
    first = next(line.split() for line in lines if line.startswith("model.0"))
    assert first[1] == "Linear"
    assert first[-2:] == ["30", "24"]  # 4 x 6 + 6 parameters, 4 x 6 multiplications a sample
    assert any("51 parameters; 42 MACs a sample" in line for line in lines)


# -- what the original gets wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize("signal", SIGNALS)
def test_D_beat_cancelling_cleans_up_and_leaves_no_gradient(
    make_task, make_trainer, data, signal: str
) -> None:
    cleaned: list[bool] = []
    runner, task = make_trainer(max_epochs=1), make_task()

    @runner.on("after_backward")
    def cancel(state: treadle.State) -> None:
        raise SIGNALS[signal]

    runner.on("cleanup")(lambda state: cleaned.append(True))
    before = copy.deepcopy(task.state_dict())
    runner.fit(task, treadle.Loader(data, 8))
    assert cleaned == [True]
    assert all(parameter.grad is None for parameter in task.parameters())
    if signal != "batch":  # a cancelled batch does not count; the others skip the optimizer
        assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())


def test_D_beat_the_rate_finder_leaves_no_trace(make_model, make_trainer, data) -> None:
    def fit(look: bool) -> str:
        task = treadle.SupervisedTask(make_model(dropout=0.5), cross_entropy, torch.optim.Adam, lr=0.01)
        loader = treadle.Loader(data, 8, shuffle=True)
        if look:
            find_learning_rate(make_trainer(), task, loader)
        return make_trainer().fit(task, loader, data).weights_sha256

    assert fit(look=True) == fit(look=False)


def test_D_beat_the_rate_finder_stops_at_not_a_number(make_task, make_trainer, data) -> None:
    calls = [0]

    def loss(output: Any, target: Any) -> Any:
        calls[0] += 1
        return cross_entropy(output, target) * (math.nan if calls[0] > 5 else 1.0)

    finding = find_learning_rate(make_trainer(), make_task(loss=loss), treadle.Loader(data, 8))
    assert len(finding.rates) == 6
    assert "nan" in finding.reason
    assert math.isfinite(finding.suggestion)


def test_D_beat_the_rate_finder_spans_epochs(make_task, make_trainer, data) -> None:
    finding = find_learning_rate(make_trainer(), make_task(), treadle.Loader(data, 13), stop_at=1e9)
    assert len(finding.rates) > 2 * 10  # two batches an epoch


def test_D_beat_frozen_parameters_are_fine(make_model, make_trainer, data) -> None:
    model = make_model()
    model[0].requires_grad_(False)
    frozen = model[0].weight.clone()
    task = treadle.SupervisedTask(model, cross_entropy, torch.optim.SGD, lr=0.1)
    watch = [
        callbacks.GradientStatistics(treadle.Every(steps=1)),
        callbacks.Summary(console=Console(quiet=True)),
    ]
    find_learning_rate(make_trainer(), task, data)
    run = make_trainer(clip_norm=1.0, callbacks=watch).fit(task, data)
    assert run.history["train/loss"][1] < run.history["train/loss"][0]
    assert torch.equal(model[0].weight, frozen)


def test_D_beat_batches_of_any_form(make_trainer, data) -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, a: Any, b: Any) -> Any:
            return self.layer(a + b)

    x, y = data
    for batches in ((x, x, y), {"a": x, "b": x, "label": y}):
        run = make_trainer().fit(treadle.SupervisedTask(Sum(), cross_entropy), batches, batches)
        assert run.status == "finished"
    assert make_trainer().predict(treadle.SupervisedTask(nn.Linear(4, 3), cross_entropy), (x,)).shape == (
        26,
        3,
    )


def test_D_beat_the_callers_list_is_not_changed(make_task, make_trainer, data) -> None:
    always: list[treadle.Callback] = [callbacks.LearningRateMonitor()]
    once: list[treadle.Callback] = [callbacks.EarlyStopping("train/loss")]
    runner = make_trainer(callbacks=always)
    runner.on("step_end")(lambda state: None)
    runner.fit(make_task(), data, callbacks=once)
    assert (len(always), len(once)) == (1, 1)


def test_D_beat_the_optimizer_keeps_its_state_between_fits(make_task, make_trainer, data) -> None:
    adam = {"optimizer": torch.optim.Adam, "lr": 0.01}
    split, whole = make_task(**adam), make_task(**adam)
    for _ in range(2):
        make_trainer(max_epochs=1).fit(split, treadle.Loader(data, 26))
    make_trainer(max_epochs=2).fit(whole, treadle.Loader(data, 26))
    for one, other in zip(split.parameters(), whole.parameters(), strict=True):
        assert torch.equal(one, other)
