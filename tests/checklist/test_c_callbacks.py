"""Rows C8 and C9: callbacks, schedules, checkpoints, results."""

# ruff: noqa: N802 - the capital letter and number are the row that the test shows

from __future__ import annotations

import importlib.util
import json
import math
import re
import shutil
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import lr_scheduler

import treadle
from treadle import callbacks, schedules, scores
from treadle.loading import load_model
from treadle.metrics import Accuracy
from treadle.report import write_report
from treadle.runs import export_csv, read_csv


def rates(make_task: Any, make_trainer: Any, data: Any, scheduler: Any, **options: Any) -> list[float]:
    """The learning rate of every step."""
    runner = make_trainer(callbacks=[callbacks.LearningRateMonitor()], **options)
    run = runner.fit(make_task(lr=1.0, scheduler=scheduler), treadle.Loader(data, 8), data)
    return run.series("learning_rate").values.tolist()


def test_C8_early_stopping_with_delta_and_patience(make_task, make_trainer, data) -> None:
    stopping = callbacks.EarlyStopping("val/loss", patience=2, min_delta=100.0)
    run = make_trainer(max_epochs=50, callbacks=[stopping]).fit(make_task(), data, data)
    assert (run.status, run.epoch) == ("stopped", 3)
    assert "EarlyStopping" in run.reason


def test_C8_stopping_at_a_threshold(make_task, make_trainer, data) -> None:
    stopping = callbacks.ThresholdStopping("val/accuracy", above=0.9)
    task = make_task(metrics={"accuracy": Accuracy()}, lr=0.5)
    run = make_trainer(max_epochs=200, callbacks=[stopping]).fit(task, data, data)
    assert run.status == "stopped"
    assert run.history["val/accuracy"][-1] > 0.9
    assert max(run.history["val/accuracy"][:-1]) <= 0.9


@pytest.mark.parametrize("policy", ["raise", "stop", "skip"])
def test_C8_losses_that_are_no_number(make_task, make_trainer, data, policy) -> None:
    steps = [0]

    def loss(output: Any, target: Any) -> Any:
        steps[0] += 1
        return cross_entropy(output, target) * (math.nan if steps[0] == 3 else 1.0)

    watch = callbacks.NonFinitePolicy(policy)
    runner = make_trainer(callbacks=[watch], log_every=1)
    if policy == "raise":
        with pytest.raises(FloatingPointError, match="nan at step 3"):
            runner.fit(make_task(loss=loss), treadle.Loader(data, 8))
        return
    run = runner.fit(make_task(loss=loss), treadle.Loader(data, 8))
    assert (run.status, run.step) == {"stop": ("stopped", 3), "skip": ("finished", 8)}[policy]
    assert watch.skipped == (policy == "skip")


def test_C8_stopping_when_all_predictions_are_the_same(make_task, make_trainer, data) -> None:
    class Dead(nn.Linear):
        def forward(self, input: Any) -> Any:
            return super().forward(input) * 0

    runner = make_trainer(max_epochs=5, callbacks=[callbacks.IdenticalPredictions()])
    run = runner.fit(make_task(model=Dead(4, 3)), data, data)
    assert (run.status, run.epoch) == ("stopped", 1)
    assert runner.fit(make_task(), data, data).status == "finished"


def test_C8_a_trial_on_a_part_of_the_data(make_task, make_trainer, data) -> None:
    class Late(treadle.SupervisedTask):
        def predict_step(self, batch: Any, state: treadle.State) -> Any:
            raise RuntimeError("the last line of a long run")

    steps: list[int] = []
    runner = make_trainer(callbacks=[callbacks.Trial(2)])
    runner.on("step_end")(lambda state: steps.append(1))
    with pytest.raises(RuntimeError, match="the last line"):
        runner.fit(make_task(Late), data, data)
    assert not steps
    runner = make_trainer(trial=True)  # or in one word
    tried = runner.fit(make_task(), treadle.Loader(data, 8, shuffle=True), data)
    plain = make_trainer().fit(make_task(), treadle.Loader(data, 8, shuffle=True), data)
    assert tried.weights_sha256 == plain.weights_sha256


def test_C8_functions_and_lists_of_callbacks(make_task, make_trainer, data) -> None:
    said: list[str] = []
    both = callbacks.CallbackList(
        [
            callbacks.FunctionEvery(
                lambda s: said.append(f"epoch {s.progress.epoch}"), treadle.Every(epochs=2)
            ),
            callbacks.FunctionEvery(lambda s: said.append(f"step {s.progress.step}"), treadle.Every(steps=3)),
        ]
    )
    make_trainer(callbacks=[both]).fit(make_task(), treadle.Loader(data, 8))
    assert said == ["step 3", "step 6", "epoch 2"]


@pytest.mark.parametrize("options", [{"clip_value": 0.01}, {"clip_norm": 0.02}])
def test_C8_gradients_are_clipped_by_value_and_by_norm(make_task, make_trainer, data, options) -> None:
    values: list[float] = []
    norms: list[float] = []
    runner = make_trainer(**options)

    @runner.on("after_optimizer_step")
    def look(state: treadle.State) -> None:
        gradients = torch.cat([p.grad.flatten() for p in state.task.parameters()])
        values.append(gradients.abs().max().item())
        norms.append(gradients.norm().item())

    runner.fit(make_task(), treadle.Loader(data, 8))
    if "clip_value" in options:
        assert max(values) == pytest.approx(0.01)
    else:
        assert norms == pytest.approx([0.02] * 8, rel=1e-3)


def test_C8_gradient_statistics_and_distribution(make_task, make_trainer, data) -> None:
    watch = [
        callbacks.GradientStatistics(treadle.Every(steps=2), layers=True),
        callbacks.GradientDistribution(treadle.Every(steps=4)),
    ]
    run = make_trainer(callbacks=watch).fit(make_task(), treadle.Loader(data, 8))
    for name in ("norm", "mean", "std", "min", "max"):
        assert run.series(f"gradient/{name}").steps.tolist() == [2, 4, 6, 8]
    assert "gradient/model.0/norm" in run.names()
    counted = [event for event in run.events if event.kind == "gradient_distribution"]
    assert [event.step for event in counted] == [4, 8]
    assert sum(counted[0].details["counts"]["model.0"]) == 4 * 6 + 6


def test_C8_any_torch_scheduler_by_epoch_by_step_or_by_a_metric(make_task, make_trainer, data) -> None:
    fit = partial(rates, make_task, make_trainer, data)
    halve = partial(lr_scheduler.ExponentialLR, gamma=0.5)
    assert fit(halve) == [1.0] * 4 + [0.5] * 4
    assert fit(treadle.Schedule(halve, every="step")) == [0.5**step for step in range(8)]
    plateau = partial(lr_scheduler.ReduceLROnPlateau, patience=0, threshold=100.0, threshold_mode="abs")
    for monitor in ("val/loss", "train/loss"):
        found = fit(treadle.Schedule(plateau, monitor=monitor), max_epochs=3)
        assert found == pytest.approx([1.0] * 8 + [0.1] * 4)


def test_C8_lambda_step_and_multistep(make_task, make_trainer, data) -> None:
    fit = partial(rates, make_task, make_trainer, data)
    assert fit(schedules.Lambda(lambda step: 1 / (1 + step))) == [1 / (1 + step) for step in range(8)]
    assert fit(schedules.StepDecay(every="1 epochs", factor=0.5)) == [1.0] * 4 + [0.5] * 4
    found = fit(schedules.MultiStepDecay(milestones=[2, 5], factor=0.5))
    assert found == [1.0] * 2 + [0.5] * 3 + [0.25] * 3


@pytest.mark.parametrize(
    ("schedule", "formula"),
    [
        (schedules.Constant(warmup=2), lambda s: 1.0),
        (schedules.LinearDecay(warmup=2), lambda s: (8 - s) / 6),
        (schedules.CosineDecay(warmup=2), lambda s: (1 + math.cos(math.pi * (s - 2) / 6)) / 2),
        (
            schedules.CosineWithRestarts(cycles=2, warmup=2),
            lambda s: (1 + math.cos(math.pi * ((s - 2) / 3 % 1))) / 2,
        ),
    ],
    ids=["constant", "linear", "cosine", "hard restarts"],
)
def test_C8_warm_up_and_then(make_task, make_trainer, data, schedule, formula) -> None:
    expected = [step / 2 if step < 2 else formula(step) for step in range(8)]
    assert rates(make_task, make_trainer, data, schedule) == pytest.approx(expected, abs=1e-9)


def test_C8_checkpoints_by_epoch_and_by_iteration_the_best_and_the_end(
    make_task, make_trainer, data, tmp_path
) -> None:
    def kept(folder: str, **options: Any) -> list[int]:
        saving = treadle.Checkpoints(**options)
        run = make_trainer(run_dir=tmp_path / folder, max_epochs=3, checkpoint=saving).fit(
            make_task(), treadle.Loader(data, 8), data
        )
        return [int(path.name.removeprefix("step-")) for path in run.checkpoints]

    assert kept("epochs", every=treadle.Every(epochs=1), keep_last=None) == [4, 8, 12]
    assert kept("steps", every=treadle.Every(steps=5), keep_last=None, keep_best=0) == [5, 10, 12]
    assert kept("both", every=treadle.Every(steps=5), keep_last=1, keep_best=1, mode="max") == [4, 12]
    # The loss falls, so that by "max" the best are the first.
    best = kept("best", every=treadle.Every(epochs=1), keep_last=1, keep_best=2, mode="max")
    assert best == [4, 8, 12]
    assert kept("one", every=treadle.Every(epochs=1), keep_last=1, keep_best=1, mode="max") == [4, 12]


def test_C8_training_is_continued(make_task, make_trainer, data, tmp_path) -> None:
    loader = treadle.Loader(data, 8, shuffle=True)
    whole = make_trainer(max_epochs=4).fit(make_task(), loader)
    make_trainer(max_epochs=2, run_dir=tmp_path / "run").fit(make_task(), loader)
    more = make_trainer(max_epochs=4, run_dir=tmp_path / "run").fit(make_task(), loader, resume="last")
    assert more.weights_sha256 == whole.weights_sha256


def test_C8_performance_is_reported_and_written_to_files(
    make_task, make_trainer, data, tmp_path, capsys
) -> None:
    task, runner = make_task(), make_trainer(run_dir=tmp_path / "run")

    @runner.on("epoch_end", treadle.Every(epochs=2))
    def report(state: treadle.State) -> None:
        found = scores.classification(make_trainer().results(state.task, data))
        state.run.append_epoch(
            state.progress.epoch, state.progress.step, {"val/macro_f1": found.values["f1"]}
        )
        print(found.table())

    run = runner.fit(task, data, data)
    assert "precision" in capsys.readouterr().out
    assert 0 < run.history["val/macro_f1"][1] <= 1
    table = read_csv(export_csv(run, tmp_path / "csv"))
    assert [v for v in table["val/loss"] if v == v] == run.history["val/loss"]


@pytest.mark.parametrize("name", ["TensorBoard", "Wandb", "CSV", "JSONLines", "MLflow", "Trackio"])
def test_C8_histories_and_distributions_go_to_trackers(
    make_task, make_trainer, data, tmp_path, monkeypatch, name
) -> None:
    """That the trackers' own readers find it all is shown in tests/loggers."""
    monkeypatch.setattr("importlib.util.find_spec", lambda package: package)
    kind = getattr(treadle.loggers, f"{name}Logger")
    said = []
    monkeypatch.setattr(kind, "open", lambda self, begin: None)
    monkeypatch.setattr(kind, "close", lambda self, status: said.append(status))
    monkeypatch.setattr(kind, "write_points", lambda self, points: said.extend(name for name, _, _ in points))
    monkeypatch.setattr(kind, "write_medium", lambda self, medium: said.append(medium.kind))

    class Distribution(treadle.Callback):
        def on_after_backward(self, state: treadle.State) -> None:
            state.log_histogram("gradient", state.task.model[0].weight.grad)

    make_trainer(run_dir=tmp_path / "run", callbacks=[kind(), Distribution()]).fit(make_task(), data, data)
    assert {"train/loss", "val/loss", "learning_rate", "histogram", "finished"} <= set(said)


def test_C8_the_history_is_seen_as_a_picture(make_task, make_trainer, data, tmp_path) -> None:
    run = make_trainer(run_dir=tmp_path / "run").fit(make_task(), data, data)
    page = (run.path / "report.html").read_text()
    assert "<figure" in page
    assert "val/loss" in page


def test_C8_histories_are_drawn_into_a_file(make_task, make_trainer, data, tmp_path) -> None:
    runs = [make_trainer(run_dir=tmp_path / "run").fit(make_task(), data, data) for _ in range(2)]
    page = write_report(runs, tmp_path / "runs.html").read_text()
    assert "val/loss" in page
    assert all(run.id in page for run in runs)
    assert not re.search(r"(src|href)=.https?://", page)  # the file needs nothing else


def test_C8_metrics_are_renamed(make_task, make_trainer, data) -> None:
    rename = callbacks.MetricRename({"val/accuracy": "acc"})
    task = make_task(metrics={"accuracy": Accuracy()})
    run = make_trainer(callbacks=[rename]).fit(task, data, data)
    assert run.history["acc"] == run.history["val/accuracy"]


@pytest.mark.parametrize("kind", ["webhook", "email"])
def test_C8_a_notification_that_fails_does_not_fail_the_run(make_task, make_trainer, data, kind) -> None:
    message: callbacks.Notification
    if kind == "webhook":
        message = callbacks.WebhookNotification("http://127.0.0.1:9/", timeout=5)
    else:
        message = callbacks.EmailNotification(
            ["a@example.org"], "b@example.org", "127.0.0.1", 9, security="none"
        )
    run = make_trainer(callbacks=[message]).fit(make_task(), data)
    assert run.status == "finished"
    assert [event.kind for event in run.events].count("notification_failed") == 1


def test_C8_a_notification_says_how_it_went(make_task, make_trainer, data) -> None:
    sent: list[dict[str, Any]] = []

    class Own(callbacks.Notification):
        def send(self, subject: str, text: str, facts: dict[str, Any]) -> None:
            sent.append(facts)

    run = make_trainer(callbacks=[Own()]).fit(make_task(), data, data)
    assert sent[0]["reason"] == "max_epochs=2 reached"
    assert sent[0]["results"]["val/loss"] == run.history["val/loss"][-1]


def test_C8_messages_between_callbacks_have_a_lifetime(make_task, make_trainer, data) -> None:
    board = callbacks.Messages()
    read: list[Any] = []

    class Posting(treadle.Callback):
        def on_step_end(self, state: treadle.State) -> None:
            board.post(state, "once", state.progress.step)
            board.post(state, "epoch", state.progress.step, until="epoch")

    class Reading(treadle.Callback):
        def on_epoch_end(self, state: treadle.State) -> None:
            read.append((board.read(state, "once"), board.read(state, "once"), board.read(state, "epoch")))

        def on_step_start(self, state: treadle.State) -> None:
            if state.progress.batch == 0:
                assert board.read(state, "epoch") is None

    make_trainer(callbacks=[board, Posting(), Reading()]).fit(make_task(), treadle.Loader(data, 8))
    assert read == [(4, None, 4), (8, None, 8)]


def test_C9_result_packages(make_task, make_trainer, data) -> None:
    task, runner = make_task(), make_trainer(max_epochs=5)
    runner.fit(task, treadle.Loader(data, 8))
    results = runner.results(task, data)
    several = scores.classification(results)
    assert several.kind == "multi-class"
    assert several.values["accuracy"] == pytest.approx((results.predictions == data[1]).float().mean().item())
    binary = scores.classification((torch.randn(20), torch.arange(20) % 2))
    assert binary.kind == "binary"
    assert 0 <= binary.values["auroc"] <= 1
    numbers = scores.regression((torch.randn(20, 1), torch.randn(20)))
    assert numbers.values["rmse"] == pytest.approx(numbers.values["mse"] ** 0.5)


def test_C9_metrics_of_other_libraries_in_a_package() -> None:
    torchmetrics = pytest.importorskip("torchmetrics")

    class Exact:
        """The face of a Hugging Face `evaluate` module."""

        def compute(self, predictions: Any, references: Any) -> dict[str, float]:
            return {"exact": sum(p == r for p, r in zip(predictions, references, strict=True)) / 4}

        def add_batch(self, predictions: Any, references: Any) -> None: ...

    outputs, targets = torch.tensor([[0.0, 1], [1, 0], [0, 1], [1, 0]]), torch.tensor([1, 0, 0, 0])
    own = {
        "cohen": torchmetrics.classification.MulticlassCohenKappa(2),
        "exact": Exact(),
        "mine": lambda output, target: (output.argmax(1) == target).float().mean(),
    }
    found = scores.classification((outputs, targets), metrics=own).values
    assert found["exact"] == found["mine"] == 0.75
    assert "cohen" in found


def test_C9_packages_compare_and_add_up(tmp_path) -> None:
    outputs, targets = torch.randn(40, 3), torch.arange(40) % 3
    whole = scores.classification((outputs, targets))
    halves = [scores.classification((outputs[part], targets[part])) for part in (slice(20), slice(20, 40))]
    assert sum(halves[1:], start=halves[0]).values == pytest.approx(whole.values)
    better = scores.classification((outputs + 5 * torch.eye(3)[targets], targets))
    assert whole < better
    assert max([better, whole]) is better
    whole.to_json(tmp_path / "scores.json")
    assert json.loads((tmp_path / "scores.json").read_text())["samples"] == 40


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs matplotlib")
def test_C9_packages_draw(tmp_path) -> None:
    scores.classification((torch.randn(20, 3), torch.arange(20) % 3)).figure().savefig(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_C9_a_finished_checkpoint_is_handed_on_to_wherever(make_task, make_trainer, data, tmp_path) -> None:
    def copy(commit: Any) -> None:  # as an uploader to S3 or GCS would
        shutil.copytree(commit.path, tmp_path / "bucket" / commit.path.name)

    saving = treadle.Checkpoints(after_save=copy)
    task = make_task()
    make_trainer(run_dir=tmp_path / "run", checkpoint=saving).fit(task, data)
    shutil.rmtree(tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "bucket").iterdir()) == ["step-00000001", "step-00000002"]
    loaded = load_model(tmp_path / "bucket" / "step-00000002", make_task())
    assert torch.equal(loaded.model[0].weight, task.model[0].weight)


def test_C9_a_predictor_over_a_saved_model(make_task, make_trainer, data, tmp_path) -> None:
    task = make_task()
    make_trainer(run_dir=tmp_path / "run").fit(task, data, data)
    predictor = load_model(tmp_path / "run", make_task(), "last")  # no optimizer, no training data
    assert torch.equal(make_trainer().predict(predictor, data), make_trainer().predict(task, data))
