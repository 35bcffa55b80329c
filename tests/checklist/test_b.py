"""Rows B: what a user's code is asked for, every level overridable, models and runs that are stored."""

# ruff: noqa: N802 - the capital letter and number are the row that the test shows

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import treadle
from treadle.callbacks import FunctionEvery
from treadle.checkpoint import newest, read
from treadle.checkpoint import write as write_checkpoint
from treadle.cli.main import make_parser
from treadle.data import Batches, Source
from treadle.loading import load_model
from treadle.metrics import Accuracy
from treadle.runs import find, list_runs
from treadle.runs.writer import WritableStore

X, Y = torch.randn(6, 4), torch.arange(6) % 3


class Reading(treadle.SupervisedTask):
    """Knows samples and results as files."""

    def load_sample(self, path: str) -> Any:
        return torch.tensor(json.loads(Path(path).read_text()))

    def postprocess(self, output: Any) -> Any:
        return output.softmax(dim=-1)

    def store_result(self, result: Any, path: str) -> None:
        Path(path).write_text(json.dumps(result.tolist()))


def trainer() -> treadle.Trainer:
    return treadle.Trainer(max_epochs=1, seed=0, run_dir=None, progress=False, device="cpu")


def task(**options: Any) -> treadle.SupervisedTask:
    return treadle.SupervisedTask(nn.Linear(4, 3), **{"loss": cross_entropy, "lr": 0.1} | options)


class NoLoss(treadle.Task):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class NoOptimizer(NoLoss):
    configure_optimizers = treadle.Task.configure_optimizers

    def compute_loss(self, batch: Any, state: treadle.State) -> Any:
        return self.layer(batch[0]).mean()


@pytest.mark.parametrize(
    ("use", "error", "named"),
    [
        (lambda: trainer().fit(task(), None), TypeError, "train data"),
        (lambda: trainer().fit(task(loss=None), (X, Y)), ValueError, "has no loss"),
        (lambda: trainer().fit(NoLoss(), (X, Y)), NotImplementedError, "NoLoss must define compute_loss"),
        (lambda: trainer().fit(NoOptimizer(), (X, Y)), NotImplementedError, "configure_optimizers"),
        (lambda: trainer().evaluate(task(), None), TypeError, "test data"),
        (lambda: task(metrics={"accuracy": None}), TypeError, "accuracy"),
        (lambda: trainer().predict_file(task(), "x.json"), NotImplementedError, "load_sample"),
        (lambda: task().store_result(X, "x.json"), NotImplementedError, "store_result"),
    ],
    ids=["train", "loss", "compute_loss", "optimizer", "test", "metric", "load_sample", "store_result"],
)
def test_B1_what_is_missing_is_named(use: Callable[[], Any], error: type[Exception], named: str) -> None:
    with pytest.raises(error, match=named):
        use()


def test_B1_testing_data_serve_for_validation_where_they_are_given_so(make_task, make_trainer, data) -> None:
    run = make_trainer().fit(make_task(), data, data, test=data)
    assert len(run.history["val/loss"]) == 2
    assert run.series("test/loss").values.tolist() == pytest.approx([run.history["val/loss"][-1]])


def test_B2_named_losses_and_the_final_model_is_saved(make_task, make_trainer, data, tmp_path) -> None:
    losses = {"classes": cross_entropy, "size": lambda output, target: output.square().mean()}
    trained = make_task(loss=losses)
    run = make_trainer(run_dir=tmp_path / "run").fit(trained, data)
    row = run.history.last()
    assert row["train/loss"] == pytest.approx(row["train/classes"] + row["train/size"])
    fresh = make_task(loss=losses)
    load_model(run, fresh, "last")
    assert all(torch.equal(a, b) for a, b in zip(trained.parameters(), fresh.parameters(), strict=True))


def test_B2_testing_on_any_data_returns_or_stores(make_task, make_trainer, data, tmp_path) -> None:
    named = make_task(metrics={"accuracy": Accuracy(), "top": treadle.metrics.TopKAccuracy(2)})
    runner = make_trainer(run_dir=tmp_path / "run")
    run = runner.fit(named, data, test=data)
    returned = runner.evaluate(named, data)
    assert set(returned) == {"test/loss", "test/accuracy", "test/top"}
    stored = treadle.Run.open(tmp_path / "run")
    for name, value in returned.items():
        assert stored.series(name).values.tolist() == pytest.approx([value])
    assert stored.series("test/loss").steps.tolist() == [run.step]
    assert runner.results(named, data).predictions.shape == (26,)


def test_B2_live_on_a_sample_and_from_path_to_path(make_task, make_trainer, data, tmp_path) -> None:
    reading, runner = make_task(Reading), make_trainer()
    (tmp_path / "in.json").write_text(json.dumps(data[0][0].tolist()))
    live = runner.predict_sample(reading, data[0][0])
    assert live.shape == (3,)
    assert live.sum().item() == pytest.approx(1)  # postprocess
    runner.predict_file(reading, tmp_path / "in.json", tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == pytest.approx(live.tolist())


def test_B2_validation_data_are_opened_once_and_stored_with_their_epoch(
    make_task, make_trainer, data, monkeypatch
) -> None:
    opened = []
    written: list[tuple[int, set[str]]] = []

    class Watched(Source):
        def open(self, *args: Any, **kwargs: Any) -> Batches:
            opened.append(1)
            return super().open(*args, **kwargs)

    append = WritableStore.append_epoch

    def watch(self: Any, epoch: int, step: int, values: Any) -> None:
        written.append((epoch, set(values)))
        append(self, epoch, step, values)

    monkeypatch.setattr(WritableStore, "append_epoch", watch)
    make_trainer(max_epochs=3).fit(make_task(), data, Watched([data]))
    assert opened == [1]
    assert [epoch for epoch, _ in written] == [1, 2, 3]  # one transaction an epoch
    assert all({"train/loss", "val/loss"} <= names for _, names in written)


LEVELS = (
    "configure_optimizers",
    "configure_schedulers",
    "items",
    "num_items",
    "train_step",
    "compute_loss",
    "prepare_batch",
    "forward",
    "combine",
    "backward",
    "optimizer_step",
    "zero_grad",
    "eval_step",
    "predict_step",
    "postprocess",
    "decide",
    "metadata",
)


def test_B3_every_level_of_the_task_is_overridden_with_super(make_task, make_trainer, data) -> None:
    called: set[str] = set()

    def wrapper(name: str) -> Any:
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            called.add(name)
            return getattr(super(Own, self), name)(*args, **kwargs)

        return method

    Own = type("Own", (treadle.SupervisedTask,), {name: wrapper(name) for name in LEVELS})
    runs = []
    for kind in (Own, treadle.SupervisedTask):
        given = make_task(kind)
        runner = make_trainer()
        runs.append(runner.fit(given, data, data))
        runner.results(given, data)
        runner.predict(given, data)
    assert called == set(LEVELS)
    assert runs[0].weights_sha256 == runs[1].weights_sha256


def test_B3_the_epoch_is_overridden_with_super(make_task, make_trainer, data) -> None:
    said: list[str] = []

    class Own(treadle.Trainer):
        def train_epoch(self, state: treadle.State) -> None:
            said.append(f"before {state.progress.epoch}")
            super().train_epoch(state)
            said.append(f"after {state.progress.epoch}")

    run = Own(max_epochs=2, run_dir=None, progress=False, seed=0).fit(make_task(), data, data)
    assert said == ["before 0", "after 1", "before 1", "after 2"]
    assert run.weights_sha256 == make_trainer().fit(make_task(), data).weights_sha256


def test_B3_the_whole_algorithm_is_overridden_with_super(make_task, data) -> None:
    class Twice(treadle.Trainer):
        def fit(self, task: Any, *args: Any, **kwargs: Any) -> treadle.Run:
            super().fit(task, *args, **kwargs)
            return super().fit(task, *args, **kwargs)

    trained = make_task()
    run = Twice(max_epochs=1, run_dir=None, progress=False, seed=0).fit(trained, data)
    once = treadle.Trainer(max_epochs=1, run_dir=None, progress=False, seed=0).fit(make_task(), data)
    assert run.weights_sha256 != once.weights_sha256


@pytest.mark.parametrize(
    ("options", "epochs"),
    [
        ({}, [3, 6]),
        ({"skip_first": False}, [1, 3, 6]),
        ({"also_last": True}, [3, 6, 7]),
    ],
)
def test_B3_a_function_every_n_epochs(make_task, make_trainer, data, options: Any, epochs: Any) -> None:
    seen: list[int] = []
    callback = FunctionEvery(
        lambda state: seen.append(state.progress.epoch), treadle.Every(epochs=3), **options
    )
    make_trainer(max_epochs=7, callbacks=[callback]).fit(make_task(), data)
    assert seen == epochs


def test_B4_models_are_registered_and_loaded_by_name_or_the_last(
    make_task, make_trainer, data, tmp_path
) -> None:
    weights: list[Any] = []
    runner = make_trainer(run_dir=tmp_path / "run", max_epochs=2)
    runner.on("epoch_end")(lambda state: weights.append(state.task.model[0].weight.detach().clone()))
    run = runner.fit(make_task(), data, data)
    assert [path.name for path in run.checkpoints] == ["step-00000001", "step-00000002"]
    for which, expected in (("step-00000001", weights[0]), ("last", weights[1])):
        for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
            model = make_task().to(device)
            load_model(tmp_path / "run", model, which)
            assert model.model[0].weight.device.type == device
            assert torch.equal(model.model[0].weight.cpu(), expected)


def test_B4_errors_say_what_there_is(make_task, make_trainer, data, tmp_path) -> None:
    run = make_trainer(run_dir=tmp_path / "run").fit(make_task(), data)
    with pytest.raises(ValueError, match=r"no checkpoint 'final'; there are step-00000001, step-00000002"):
        load_model(run, make_task(), "final")
    bare = make_trainer(run_dir=tmp_path / "bare", checkpoint=None).fit(make_task(), data)
    with pytest.raises(ValueError, match="has no checkpoint"):
        load_model(bare, make_task(), "last")
    with pytest.raises(ValueError, match="another model"):
        load_model(run, nn.Linear(2, 2), "last")
    with pytest.raises(ValueError, match="load_model"):
        load_model(tmp_path / "nowhere", make_task())


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git to make a commit")
def test_B5_what_a_run_holds(make_task, make_trainer, data, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "one"]):
        subprocess.run([*git, *words], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    runner = make_trainer(run_dir=tmp_path / "runs" / "run")
    runner.on("step_end")(lambda state: state.record("own/steps", state.progress.step))
    run = runner.fit(make_task(), data, data, test=data)
    with treadle.Run.reopen(run.path) as again:
        again.update(comment="with a rate of 0.1")
    found = treadle.Run.open(run.path)
    assert len(found.id) == 8
    assert found.environment["git"]["commit"] == head.strip()
    assert 0 < found.created < found.ended
    assert found.fields["comment"] == "with a rate of 0.1"
    for name in ("train/loss", "test/loss", "own/steps"):
        assert len(found.series(name).values), name
    assert len(found.history["val/loss"]) == 2
    assert found.checkpoints


def test_B5_runs_are_listed_and_used_by_id_from_other_programs(make_task, make_trainer, data, tmp_path):
    runs = [make_trainer(run_dir=tmp_path / "runs" / "one").fit(make_task(), data) for _ in range(2)]
    assert [run.path.name for run in list_runs(tmp_path / "runs")] == ["one-2", "one"]
    assert find(tmp_path / "runs", runs[0].id).path == runs[0].path
    program = "import sys; from treadle.runs import find; r = find(sys.argv[1], sys.argv[2])\n"
    program += "print(r.history['train/loss'], 'torch' in sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "runs"), runs[1].id],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert said.strip() == f"{runs[1].history['train/loss']} False"


def test_B5_commands_to_train_to_test_and_to_predict() -> None:
    commands = make_parser().format_help()
    assert all(f" {name} " in commands for name in ("fit", "evaluate", "predict", "resume", "runs"))


def test_B_beat_evaluation_is_in_eval_mode_and_without_gradients(make_task, make_trainer, data) -> None:
    seen: list[tuple[bool, bool]] = []

    class Watched(treadle.SupervisedTask):
        def forward(self, inputs: Any) -> Any:
            seen.append((self.model.training, torch.is_grad_enabled()))
            return super().forward(inputs)

    watched, runner = make_task(Watched), make_trainer(max_epochs=1)
    runner.fit(watched, data, data)
    assert seen == [(True, True), (False, False)]
    assert watched.model.training
    seen.clear()
    for look in (runner.evaluate, runner.predict, runner.results):
        look(watched, data)
    assert seen == [(False, False)] * 3


def test_B_beat_writes_are_atomic(tmp_path, monkeypatch) -> None:
    write_checkpoint(tmp_path, 1, {"model": {"w": torch.ones(3)}})

    def killed(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", killed)  # the last call of a save, after everything is written
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(tmp_path, 2, {"model": {"w": torch.zeros(3)}})
    found = newest(tmp_path)
    assert found is not None
    assert found.path.name == "step-00000001"
    assert torch.equal(found.contents["model"]["w"], torch.ones(3))


@pytest.mark.skipif(not Path("/proc/self/io").is_file(), reason="needs the kernel's count of written bytes")
def test_B_beat_an_epoch_writes_an_epoch_and_not_the_whole_file(tmp_path) -> None:
    def written() -> int:
        lines = Path("/proc/self/io").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("wchar")))

    with treadle.Run.create(tmp_path / "run") as run:

        def cost(first: int) -> int:
            before = written()
            for epoch in range(first, first + 50):
                run.append_epoch(epoch, epoch, {f"val/{i}": epoch / (i + 1) for i in range(20)})
            return written() - before

        early = cost(1)
        for epoch in range(51, 1501):
            run.append_epoch(epoch, epoch, {f"val/{i}": epoch / (i + 1) for i in range(20)})
        assert cost(1501) < 2 * early
        assert len(run.history["epoch"]) == 1550


def test_B_beat_not_a_number_is_valid_json(make_task, make_trainer, data, tmp_path) -> None:
    def refuse(word: str) -> Any:
        raise AssertionError(f"{word} is no JSON")

    def broken(output: Any, target: Any) -> Any:
        return (output.sum() * 0 - 1).log()

    run = make_trainer(run_dir=tmp_path / "run").fit(make_task(metrics={"broken": broken}), data, data)
    with treadle.Run.reopen(run.path) as again:
        again.update(worst=float("nan"), best=float("inf"))
        again.event("odd", 1, value=float("-inf"))
    files = list(run.path.rglob("*.json"))
    assert len(files) > 3
    for path in files:
        json.loads(path.read_text(), parse_constant=refuse)
    found = treadle.Run.open(run.path)
    assert found.fields["worst"] != found.fields["worst"]
    assert all(value != value for value in found.history["val/broken"])


def test_B_beat_more_than_weights_is_saved(make_task, make_trainer, data, tmp_path) -> None:
    def fit(folder: str, epochs: int, resume: str | None = None) -> treadle.Run:
        schedule = treadle.Schedule(lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.5))
        given = make_task(optimizer=torch.optim.AdamW, lr=0.01, scheduler=schedule)
        runner = make_trainer(run_dir=tmp_path / folder, max_epochs=epochs)
        return runner.fit(given, treadle.Loader(data, 8, shuffle=True), data, resume=resume)

    whole = fit("whole", 3)
    contents = read(whole.checkpoints[-1])
    assert {"model", "optimizers", "schedules", "rng", "progress", "metrics"} <= set(contents)
    fit("part", 1)
    assert fit("part", 3, resume="last").weights_sha256 == whole.weights_sha256


def test_B5_a_command_serves_the_page_of_a_run(make_task, make_trainer, data, tmp_path) -> None:
    import urllib.request
    from threading import Thread

    from treadle.report.live import LiveServer

    run = make_trainer(run_dir=tmp_path / "run").fit(make_task(), data, data)
    with LiveServer([run]) as server:  # what `treadle watch RUN` starts; see tests/cli and tests/browser
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(server.url, timeout=10) as response:
            assert run.id in response.read().decode()
        server.shutdown()
