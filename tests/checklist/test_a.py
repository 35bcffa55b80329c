"""Rows A: one call that trains, one that tests, a configuration, a record."""

# ruff: noqa: N802 - the capital letter and number are the row that the test shows

from __future__ import annotations

import copy
import io
import itertools
import random
import time
import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from sklearn.metrics import f1_score
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR

import treadle
from treadle.callbacks import Progress
from treadle.cli.main import main
from treadle.metrics import F1, Accuracy, MeanSquaredError

CONFIGURED = {
    "loss": {"class_path": "torch.nn.CrossEntropyLoss"},
    "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}},
    "scheduler": {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 1}},
}


def test_A1_objects_and_configurations_train_alike(make_model, make_trainer, data) -> None:
    model = make_model()
    objects = {
        "loss": nn.CrossEntropyLoss(),
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "scheduler": treadle.Schedule(partial(StepLR, step_size=1)),
    }
    of_objects = make_trainer().fit(treadle.SupervisedTask(model, **objects), data)
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    bound = treadle.SupervisedTask(model, nn.CrossEntropyLoss(), optimizer, scheduler=StepLR(optimizer, 1))
    assert make_trainer().fit(bound, data).weights_sha256 == of_objects.weights_sha256
    of_words = make_trainer().fit(treadle.SupervisedTask(make_model(), **CONFIGURED), data)
    assert of_objects.weights_sha256 == of_words.weights_sha256
    assert of_words.history["learning_rate"] == pytest.approx([0.1, 0.01])


def test_A1_left_out(make_trainer, data) -> None:
    class OwnLoss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, inputs: Any, labels: Any) -> dict[str, Any]:
            scores = self.layer(inputs)
            return {"loss": cross_entropy(scores, labels), "scores": scores}

    task = treadle.SupervisedTask(OwnLoss())
    run = make_trainer().fit(task, {"inputs": data[0], "labels": data[1]})
    assert type(task.optimizers["optimizer"]) is torch.optim.AdamW
    assert len(set(run.history["learning_rate"])) == 1
    assert run.history["train/loss"][1] < run.history["train/loss"][0]


def test_A1_built_when_training_starts(make_trainer, data) -> None:
    task = treadle.SupervisedTask(nn.Linear(4, 3), **CONFIGURED)
    assert task.optimizers == {}
    task.model = nn.Linear(4, 3)  # until then the model may be another one
    make_trainer().fit(task, data)
    (group,) = task.optimizers["optimizer"].param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in task.model.parameters()]


def test_A1_the_callers_configuration_is_not_changed(make_model, make_trainer, data) -> None:
    given = copy.deepcopy(CONFIGURED)
    make_trainer().fit(treadle.SupervisedTask(make_model(), **given), data)
    assert given == CONFIGURED


def test_A2_evaluation_display_and_device_are_chosen(make_task, data, capsys) -> None:
    def fit(**options: Any) -> tuple[treadle.Run, str]:
        trainer = treadle.Trainer(max_epochs=2, run_dir=None, device="cpu", **options)
        return trainer.fit(make_task(metrics={"accuracy": Accuracy()}), data, data), capsys.readouterr().out

    shown, output = fit()
    assert "val/accuracy" in shown.history
    assert "epoch 1/2" in output
    hidden, output = fit(progress=False, eval_every=None)
    assert "val/loss" not in hidden.history
    assert output == ""
    assert hidden.environment["device"] == "cpu"


def test_A2_a_line_every_n_epochs(make_task, make_trainer, data, capsys) -> None:
    make_trainer(max_epochs=5, progress=2).fit(make_task(), data)
    lines = capsys.readouterr().out.splitlines()
    shown = [line.split()[1] for line in lines if line.startswith("epoch ")]
    assert shown[:2] == ["2/5", "4/5"]
    assert "1/5" not in shown


def test_A3_what_a_batch_is(make_task, make_trainer, data) -> None:
    said: list[str] = []

    class Told(treadle.SupervisedTask):
        def forward(self, inputs: Any) -> Any:
            said.append("forward")
            assert self.training
            return super().forward(inputs)

        def backward(self, loss: Any, share: Any, state: treadle.State) -> None:
            said.append("backward")
            assert all(p.grad is None for p in self.parameters())
            super().backward(loss, share, state)

        def optimizer_step(self, state: treadle.State) -> None:
            said.append("step")
            super().optimizer_step(state)
            assert all(p.grad is None for p in self.parameters())

    def loss(output: Any, target: Any) -> Any:
        said.append("loss")
        return cross_entropy(output, target)

    def score(output: Any, target: Any) -> Any:  # y_score and y_true; y_pred is what one makes of them
        said.append("metric")
        return (output.argmax(1) == target).float().mean()

    make_trainer(max_epochs=1).fit(make_task(Told, loss=loss, metrics={"score": score}), data)
    assert said == ["forward", "metric", "loss", "backward", "step"]


def test_A3_what_an_epoch_is(make_task, make_trainer, data) -> None:
    said: list[Any] = []
    trainer = make_trainer()
    trainer.on("epoch_start")(lambda state: said.append(("train", state.task.training)))
    trainer.on("eval_start")(lambda state: said.append((state.mode, state.task.training)))
    trainer.on("epoch_end")(lambda state: said.append("end"))
    run = trainer.fit(make_task(scheduler=partial(StepLR, step_size=1)), data, data)
    assert said == [("train", True), ("val", False), "end"] * 2
    assert run.history["learning_rate"] == pytest.approx([0.1, 0.01])
    assert len(run.history["time/epoch"]) == 2


def test_A4_progress_shows_time_epoch_loss_metric_and_rate(make_task, make_trainer, data) -> None:
    console = Console(file=io.StringIO(), width=200)
    clock = itertools.count(0, 40)  # forty seconds go by between two looks
    progress = Progress(console, clock=lambda: next(clock))
    task = make_task(metrics={"accuracy": Accuracy()})
    make_trainer(callbacks=[progress], log_every=1).fit(task, treadle.Loader(data, 8), data)
    lines = console.file.getvalue().splitlines()
    inside = next(line for line in lines if line.startswith("epoch 1/2  step 1/4"))
    assert "loss " in inside
    assert "2:00, 14:00 left" in inside  # elapsed, by a clock that was looked at three times
    end = next(line for line in lines if "val/accuracy" in line)
    for part in ("epoch 1/2", "train/loss", "train/accuracy", "val/loss", "lr 0.1"):
        assert part in end


def test_A5_the_record(make_task, make_trainer, data, tmp_path) -> None:
    class Scored(treadle.SupervisedTask):
        def compute_loss(self, batch: Any, state: treadle.State) -> Any:
            loss = super().compute_loss(batch, state)
            state.log("batch_accuracy", (state.output.argmax(1) == batch[1]).float().mean())
            return loss

    trainer = make_trainer(run_dir=tmp_path / "run", log_every=1)
    trainer.on("eval_end")(lambda state: time.sleep(0.1))
    trainer.on("step_end")(lambda state: time.sleep(0.005))
    began = time.time()
    run = trainer.fit(make_task(Scored, metrics={"accuracy": Accuracy()}), treadle.Loader(data, 8), data)
    assert run.fields["preparation_seconds"] > 0
    for epoch, duration in enumerate(run.history.durations(), start=1):
        assert duration.epoch == epoch
        assert began <= duration.start < duration.end <= time.time()
        assert 0.02 <= duration.seconds <= duration.end - duration.start - 0.1  # the test is not in it
    assert len(run.history["val/accuracy"]) == 2
    for name in ("train/loss", "train/batch_accuracy"):
        assert run.series(name).steps.tolist() == list(range(1, 9))
    clock = run.clock
    assert clock.steps[-1] == 8
    assert clock.times[-1] - clock.times[0] >= 0.005


def test_A5_readable_while_training(make_task, make_trainer, data, tmp_path) -> None:
    seen: list[tuple[str, list[float]]] = []
    trainer = make_trainer(run_dir=tmp_path / "run")

    @trainer.on("epoch_end")
    def look(state: treadle.State) -> None:
        other = treadle.Run.open(tmp_path / "run")  # as another process would
        seen.append((other.status, other.history["epoch"]))

    trainer.fit(make_task(), data)
    assert seen == [("running", [1]), ("running", [1, 2])]
    assert treadle.Run.open(tmp_path / "run").status == "finished"


def test_A6_full_and_short_results(make_task, make_trainer, data) -> None:
    task, trainer = make_task(metrics={"accuracy": Accuracy()}), make_trainer()
    trainer.fit(task, data)
    full = trainer.results(task, data)
    assert torch.equal(full.targets, data[1])
    assert torch.equal(full.predictions, full.outputs.argmax(1))
    assert full.outputs.shape == (26, 3)
    assert full.seconds > 0
    assert full.values["test/accuracy"] == pytest.approx((full.predictions == data[1]).float().mean().item())
    short = trainer.evaluate(task, data)
    assert short == full.values
    assert set(short) == {"test/loss", "test/accuracy"}  # a metric's name is its key


def test_A7_accuracy_f1_and_mse() -> None:
    scores, classes = torch.randn(40, 3), torch.randint(3, (40,))
    values = []
    for metric in (Accuracy(), F1("macro")):
        for part in range(0, 40, 7):
            metric.update(scores[part : part + 7], classes[part : part + 7])
        values.append(float(metric.compute()))
    chosen = scores.argmax(1)
    known = [
        float((chosen == classes).float().mean()),
        f1_score(classes.numpy(), chosen.numpy(), average="macro"),
    ]
    assert values == pytest.approx(known)
    error = MeanSquaredError()
    error.update(scores[:, 0], scores[:, 1])
    assert float(error.compute()) == pytest.approx(mse_loss(scores[:, 0], scores[:, 1]).item())


def test_A7_seeds_in_one_call() -> None:
    def drawn() -> tuple[float, float, float]:
        treadle.seed_all(7)
        return random.random(), float(np.random.rand()), torch.rand(()).item()

    assert drawn() == drawn()


FILE = """
seed: 1
task:
  class_path: treadle.SupervisedTask
  init_args:
    model: {class_path: torch.nn.Linear, init_args: {in_features: 64, out_features: 10}}
    loss: {class_path: torch.nn.CrossEntropyLoss}
    optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.5}}
    scheduler: {class_path: torch.optim.lr_scheduler.StepLR, init_args: {step_size: 1}}
    metrics: {accuracy: {class_path: treadle.metrics.Accuracy}, f1: {class_path: treadle.metrics.F1}}
data:
  train:
    class_path: treadle.Loader
    init_args: {dataset: {class_path: treadle.data.Digits}, batch_size: 128, shuffle: true}
  val:
    class_path: treadle.Loader
    init_args: {dataset: {class_path: treadle.data.Digits, init_args: {split: val}}, batch_size: 360}
trainer: {max_epochs: 2, run_dir: runs/one, progress: false}
"""


def test_A7_one_file_describes_a_run_and_outputs_are_saved(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("one.yaml").write_text(FILE)
    assert main(["fit", "one.yaml"]) == 0
    run = treadle.Run.open("runs/one")
    assert {"val/loss", "val/accuracy", "val/f1"} <= set(run.history)
    assert run.environment["seed"] == 1
    np.save("new.npy", treadle.data.Digits("val").tensors[0][:5].numpy())
    assert main(["predict", "runs/one", "new.npy", "-o", "scores.npy"]) == 0
    assert np.load("scores.npy").shape == (5, 10)


def test_A_beat_the_test_loss_is_item_weighted(make_task, make_trainer, data) -> None:
    task = make_task()
    whole = cross_entropy(task(data[0]), data[1]).item()
    for size in (1, 8, 25, 26):
        found = make_trainer().evaluate(task, treadle.Loader(data, size))["test/loss"]
        assert found == pytest.approx(whole, rel=1e-6), size
    batches = [cross_entropy(task(x), y).item() for x, y in treadle.Loader(data, 25)]
    assert np.mean(batches) != pytest.approx(whole, rel=1e-3)  # the last is a batch of one


def test_A_beat_no_test_data_are_needed(make_task, make_trainer, data) -> None:
    assert make_trainer().fit(make_task(), data).status == "finished"


def test_A_beat_reduce_on_plateau_works(make_task, make_trainer, data) -> None:
    scheduler = partial(ReduceLROnPlateau, patience=0, threshold=1e9, threshold_mode="abs")
    run = make_trainer(max_epochs=4).fit(make_task(scheduler=scheduler), data, data)
    assert run.history["learning_rate"] == pytest.approx([0.1, 0.1, 0.01, 0.001])


def test_A_beat_every_zero_is_an_error_that_says_so() -> None:
    with pytest.raises(ValueError, match="epochs is 0; it must be positive"):
        treadle.Every(epochs=0)
    with pytest.raises(ValueError, match="log_every is 0"):
        treadle.Trainer(max_epochs=1, log_every=0)


def test_A_beat_a_regression_column_is_no_class(make_trainer) -> None:
    x = torch.randn(10, 4)
    task = treadle.SupervisedTask(nn.Linear(4, 1), mse_loss, metrics={"mse": MeanSquaredError()})
    results = make_trainer().results(task, (x, x[:, :1]))
    assert torch.equal(results.predictions, results.outputs)
    assert results.predictions.unique().numel() == 10
    assert results.values["test/mse"] == pytest.approx(results.values["test/loss"])


def test_A_beat_the_optimizer_of_another_model_is_refused(make_model, make_task, make_trainer, data) -> None:
    foreign = torch.optim.SGD(make_model().parameters(), lr=0.1)
    with pytest.raises(ValueError, match="would train another model"):
        make_trainer().fit(make_task(optimizer=foreign, lr=None), data)


def test_A_beat_the_record_does_not_grow_in_memory(tmp_path: Path) -> None:
    with treadle.Run.create(tmp_path / "run") as run:

        def write(first: int, last: int) -> int:
            for step in range(first, last, 100):
                run.append_steps([("train/loss", step + i, 0.5 + (step + i) % 7) for i in range(100)])
            return tracemalloc.get_traced_memory()[0]

        tracemalloc.start()
        try:
            before = write(0, 20_000)
            after = write(20_000, 100_000)
        finally:
            tracemalloc.stop()
        assert after - before < 300_000  # eighty thousand Python floats alone are two million bytes
        assert len(run.series("train/loss").steps) == 100_000


@pytest.mark.usefixtures("values_stay_on_the_device")
def test_A_beat_nothing_is_read_from_the_device_for_each_batch(make_task, data, monkeypatch) -> None:
    reads = [0]
    for name in ("item", "tolist", "__float__", "__bool__", "numpy", "cpu"):
        method = getattr(torch.Tensor, name)

        def counted(self: Any, *args: Any, method: Any = method, **kwargs: Any) -> Any:
            reads[0] += 1
            return method(self, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, counted)

    def reads_of(samples: int) -> int:
        trainer = treadle.Trainer(
            max_epochs=1, seed=0, run_dir=None, progress=False, device="cpu", log_every=10**6
        )
        x, y = data[0].repeat(20, 1)[:samples], data[1].repeat(20)[:samples]
        reads[0] = 0
        trainer.fit(make_task(metrics={"accuracy": Accuracy()}), treadle.Loader((x, y), 2, shuffle=True))
        return reads[0]

    few, many = reads_of(20), reads_of(400)
    assert many - few < 20  # 190 batches more; values are also read once a second, on a slow machine
