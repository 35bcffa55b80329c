"""Rows C: loops, losses, predictions and results; the callbacks are in test_c_callbacks.py."""

# ruff: noqa: N802 - the capital letter and number are the row that the test shows

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import treadle
from treadle.alternating_task import AlternatingTask
from treadle.checkpoint import read
from treadle.metrics import Accuracy
from treadle.precision import ScaledFloat16


class TwoHeads(treadle.Task):
    """Two losses over one body."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.classes, self.size = nn.Linear(4, 6), nn.Linear(6, 3), nn.Linear(6, 1)

    def compute_loss(self, batch: Any, state: treadle.State) -> dict[str, Any]:
        hidden = self.body(batch[0]).relu()
        size = self.size(hidden).squeeze(1) - batch[0].norm(dim=1)
        return {"classes": cross_entropy(self.classes(hidden), batch[1]), "size": size.square().mean()}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05)


class TwoTurns(AlternatingTask, TwoHeads):
    """The same, each loss with an optimizer of its own; the body is in both."""

    def configure_optimizers(self) -> Any:
        return {
            "classes": torch.optim.SGD([*self.body.parameters(), *self.classes.parameters()], lr=0.05),
            "size": torch.optim.Adam([*self.body.parameters(), *self.size.parameters()], lr=0.01),
        }


class Rows(treadle.SupervisedTask):
    """Keeps of each sample its first number and a name."""

    def metadata(self, batch: Any) -> dict[str, Any]:
        first = batch[0][:, 0]
        return {"first": first, "array": first.numpy() * 2, "name": [f"{v:.3f}" for v in first.tolist()]}


def test_C1_loaders_losses_and_optimizers_are_optional_or_several(make_task, make_trainer, data) -> None:
    runner = make_trainer()
    assert "val/loss" not in runner.fit(make_task(), data).history
    run = runner.fit(make_task(), data, data, test=data)
    assert "test/loss" in run.names()
    turns = TwoTurns()
    run = runner.fit(turns, data, data)
    assert set(turns.optimizers) == {"classes", "size"}
    assert {"train/classes", "train/size", "val/classes", "val/size"} <= set(run.history)


def test_C1_functions_on_batch_predictions_and_on_all(make_task, make_trainer, data) -> None:
    class Own(treadle.SupervisedTask):
        def postprocess(self, output: Any) -> Any:  # of each batch, for predict
            return {"probability": output.softmax(1), "best": output.argmax(1).tolist()}

        def decide(self, outputs: Any, targets: Any) -> Any:  # of all samples, for results
            return outputs.argsort(dim=1, descending=True)

    own, runner = make_task(Own), make_trainer()
    predicted = runner.predict(own, treadle.Loader(data, 8))
    assert predicted["probability"].shape == (26, 3)
    assert len(predicted["best"]) == 26  # batches joined: tensors, lists
    assert runner.results(own, data).predictions[:, 0].tolist() == predicted["best"]


def test_C1_batches_of_unequal_predictions_are_joined_as_the_task_says(make_task, make_trainer, data) -> None:
    class Boxes(treadle.SupervisedTask):
        def predict_step(self, batch: Any, state: treadle.State) -> Any:
            return torch.zeros(len(batch[0]), int(batch[1].max()) + 1)

        def join(self, batches: list[Any]) -> Any:
            return [row for batch in batches for row in batch]

    assert len(make_trainer().predict(make_task(Boxes), treadle.Loader(data, 1))) == 26


def test_C1_callbacks_are_listed_when_a_run_starts(make_task, make_trainer, data) -> None:
    listed: list[Any] = []
    runner = make_trainer(callbacks=[treadle.callbacks.EarlyStopping("train/loss")])
    runner.on("fit_start")(lambda state: listed.extend(state.run.fields["callbacks"]))
    runner.fit(make_task(), data)
    assert "EarlyStopping(train/loss)" in listed


@pytest.mark.parametrize(
    ("every", "evaluated"),
    [
        (treadle.Every(epochs=1), [1, 2, 3, 4, 5]),
        (treadle.Every(epochs=2), [2, 4, 5]),  # and the end of the run
        (None, []),
    ],
)
def test_C1_evaluation_always_never_or_every_n(make_task, make_trainer, data, every, evaluated) -> None:
    run = make_trainer(max_epochs=5, eval_every=every).fit(make_task(), data, data)
    losses = run.history.get("val/loss", [float("nan")] * 5)
    assert [epoch for epoch, loss in enumerate(losses, start=1) if loss == loss] == evaluated


def test_C1_evaluation_every_n_steps(make_task, make_trainer, data) -> None:
    runner = make_trainer(max_epochs=2, eval_every=treadle.Every(steps=3))
    run = runner.fit(make_task(), treadle.Loader(data, 8), data)
    assert run.series("val/loss").steps.tolist() == [3, 6]


def test_C1_no_folder_before_everything_is_checked(make_task, make_trainer, data, tmp_path) -> None:
    runner = make_trainer(run_dir=tmp_path / "run")
    with pytest.raises(TypeError):
        runner.fit(make_task(), data, 3)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("precision", ["bf16", "fp16", ScaledFloat16("cpu", initial_scale=8.0)])
def test_C1_mixed_precision_on_or_with_settings(make_task, make_trainer, data, precision) -> None:
    runner = make_trainer(precision=precision)
    run = runner.fit(make_task(), data)
    assert run.history["train/loss"][1] < run.history["train/loss"][0]
    if isinstance(precision, ScaledFloat16):
        assert runner.precision.state_dict()["scale"] == 8.0


def test_C2_epochs_or_iterations_and_exactly_one(make_task, make_trainer, data) -> None:
    loader = treadle.Loader(data, 8)
    assert make_trainer(max_epochs=3).fit(make_task(), loader).step == 12
    assert make_trainer(max_steps=5).fit(make_task(), loader).step == 5
    for options in ({"max_epochs": 1, "max_steps": 1}, {"max_epochs": None, "max_steps": None}):
        with pytest.raises(ValueError, match="exactly one of max_epochs and max_steps"):
            make_trainer(**options).fit(make_task(), loader)


def test_C2_callbacks_for_one_fit(make_task, make_trainer, data) -> None:
    class Count(treadle.Callback):
        steps = 0

        def on_step_end(self, state: treadle.State) -> None:
            self.steps += 1

    always, once = Count(), Count()
    runner = make_trainer(max_epochs=1, callbacks=[always])
    runner.fit(make_task(), data, callbacks=[once])
    runner.fit(make_task(), data)
    assert (always.steps, once.steps) == (2, 1)


def test_C2_stopping_inside_an_epoch_does_the_work_of_its_end(make_task, make_trainer, data) -> None:
    ends: list[int] = []
    runner = make_trainer(max_steps=6)
    runner.on("epoch_end")(lambda state: ends.append(state.progress.step))
    run = runner.fit(make_task(metrics={"accuracy": Accuracy()}), treadle.Loader(data, 8), data, test=data)
    assert ends == [4, 6]
    assert run.history["step"] == [4, 6]
    assert len(run.history["val/accuracy"]) == 2
    assert "test/loss" in run.names()
    assert (run.status, run.reason, run.epoch) == ("finished", "max_steps=6 reached", 1)


def test_C2_the_trained_model_is_the_one_given(make_task, make_trainer, data) -> None:
    task = make_task()
    before = task.model[0].weight.detach().clone()
    run = make_trainer().fit(task, data)
    assert not torch.equal(task.model[0].weight, before)
    assert run.history["train/loss"]
    assert len(run.weights_sha256) == 64


def updates_of(make_trainer: Any, task: treadle.Task, batches: int, accumulate: int) -> list[int]:
    """After which batch (from 0) the optimizer has stepped."""
    batch = [-1]
    updates: list[int] = []
    runner = make_trainer(max_epochs=1, accumulate=accumulate)

    @runner.on("batch_start")
    def begin(state: treadle.State) -> None:
        batch[0] += 1

    runner.on("before_optimizer_step")(lambda state: updates.append(batch[0]))
    runner.fit(task, treadle.Loader((torch.randn(batches, 4), torch.arange(batches) % 3), 1))
    return updates


def test_C3_an_update_at_every_kth_batch_and_the_last(make_task, make_trainer) -> None:
    assert updates_of(make_trainer, make_task(), 10, 4) == [3, 7, 9]
    assert updates_of(make_trainer, make_task(), 8, 4) == [3, 7]
    assert updates_of(make_trainer, make_task(), 3, 1) == [0, 1, 2]


def test_C3_callbacks_ask_whether_this_batch_updates(make_task, make_trainer) -> None:
    answers: list[bool] = []
    runner = make_trainer(max_epochs=1, accumulate=4)
    runner.on("after_loss")(lambda state: answers.append(state.engine.is_last))
    runner.fit(make_task(), treadle.Loader((torch.randn(10, 4), torch.arange(10) % 3), 1))
    assert [batch for batch, answer in enumerate(answers) if answer] == [3, 7, 9]


@pytest.mark.parametrize("accumulate", [1, 3, 4, 30])
@pytest.mark.parametrize("loader", ["own", "given", "dropping"])
def test_C3_the_number_of_updates_is_known_ahead(make_task, make_trainer, data, accumulate, loader) -> None:
    loaders: dict[str, Any] = {
        "own": treadle.Loader(data, 5),
        "given": DataLoader(TensorDataset(*data), 5),
        "dropping": treadle.Loader(data, 5, drop_last=True),
    }
    known: list[Any] = []
    runner = make_trainer(max_epochs=3, accumulate=accumulate)
    runner.on("fit_start")(lambda state: known.append(state.total_steps))
    assert runner.fit(make_task(), loaders[loader]).step == known[0]


def test_C4_what_is_measured_when(make_task, make_trainer, data) -> None:
    order: list[str] = []
    runner = make_trainer(max_epochs=2)
    runner.on("eval_end")(lambda state: order.append(state.mode))
    full: list[float] = []
    runner.on("epoch_end")(lambda state: full.append(state.results["full/loss"]))
    task = make_task()
    run = runner.fit(task, treadle.Loader(data, 8), data, test=data, also={"full": data})
    assert order == ["val", "full", "val", "full", "test"]
    assert run.history["full/loss"] == full  # with the weights of the epoch's end
    assert run.history["train/loss"] != full  # accumulated on the way
    assert runner.evaluate(task, data)["test/loss"] == pytest.approx(full[-1])


def test_C4_callbacks_insert_into_the_history(make_task, make_trainer, data) -> None:
    class Insert(treadle.Callback):
        def on_epoch_end(self, state: treadle.State) -> None:
            state.run.append_epoch(
                state.progress.epoch, state.progress.step, {"own/twice": 2 * state.progress.epoch}
            )

    assert make_trainer(callbacks=[Insert()]).fit(make_task(), data).history["own/twice"] == [2, 4]


def test_C5_losses_and_predictions_of_any_data(make_task, make_trainer, data) -> None:
    task, runner = make_task(Rows), make_trainer()
    runner.fit(task, data)
    whole = cross_entropy(task(data[0]), data[1])
    half = (data[0][:13], data[1][:13])
    for name, given in (
        ("train", treadle.Loader(data, 8, shuffle=True)),
        ("val", DataLoader(TensorDataset(*data), 7)),
        ("own", TensorDataset(*data)),
    ):
        found = runner.evaluate(task, given, name)
        assert found == {f"{name}/loss": pytest.approx(whole.item(), rel=1e-5)}
        results = runner.results(task, given, name)
        assert torch.equal(results.targets, data[1])
        assert torch.equal(results.metadata["first"], data[0][:, 0])
        assert isinstance(results.metadata["array"], np.ndarray)
        assert results.metadata["array"].shape == (26,)
        assert results.metadata["name"][25] == f"{data[0][25, 0]:.3f}"
    assert runner.predict(task, half).shape == (13, 3)


def test_C5_repeated_requests_are_served_from_a_cache_and_can_be_forced(
    make_task, make_trainer, data
) -> None:
    task, runner = make_task(), make_trainer()
    first = runner.results(task, data)
    assert runner.results(task, data) is first
    forced = runner.results(task, data, refresh=True)
    assert forced is not first
    assert torch.equal(forced.outputs, first.outputs)


def test_C6_several_losses_in_one_backward(make_trainer, data) -> None:
    task = TwoHeads()
    task.loss_weights = {"size": 0.5}
    run = make_trainer(max_epochs=1).fit(task, treadle.Loader(data, 26))
    known = TwoHeads()
    losses = known.compute_loss(data, None)  # type: ignore[arg-type]
    (losses["classes"] + 0.5 * losses["size"]).backward()
    for parameter, other in zip(known.parameters(), task.parameters(), strict=True):
        assert torch.allclose(parameter - 0.05 * parameter.grad, other, atol=1e-6)
    assert run.history["train/classes"][0] == pytest.approx(losses["classes"].item())


def test_C6_losses_mapped_to_optimizers(make_trainer, data) -> None:
    class Once(TwoTurns):
        """Disjoint parameters, so that a hand-written loop is short."""

        def configure_optimizers(self) -> Any:
            return {
                "classes": torch.optim.SGD([*self.body.parameters(), *self.classes.parameters()], lr=0.05),
                "size": torch.optim.SGD(self.size.parameters(), lr=0.5),
            }

    task, known = Once(), Once()
    make_trainer(max_epochs=1).fit(task, treadle.Loader(data, 26))
    for name, optimizer in known.configure_optimizers().items():
        known.zero_grad()
        known.compute_loss(data, None)[name].backward()  # type: ignore[arg-type]
        optimizer.step()
    for ours, theirs in zip(task.parameters(), known.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_C6_optimizers_are_stepped_by_name_or_all_and_saved(make_trainer, data, tmp_path) -> None:
    class ByName(TwoTurns):
        def train_step(self, window: Any, state: treadle.State) -> None:
            name = ("classes", "size")[state.progress.step % 2]
            for batch, share in state.engine.microbatches(window, self.items(window)):
                state.engine.backward(self.compute_loss(batch, state)[name], share)
            state.engine.step(self.optimizers[name])

    task = ByName()
    run = make_trainer(run_dir=tmp_path / "run").fit(task, treadle.Loader(data, 8))
    adam = task.optimizers["size"]
    assert {int(state["step"]) for state in adam.state.values()} == {4}  # of eight steps
    saved = read(run.checkpoints[-1])["optimizers"]
    assert set(saved) == {"classes", "size"}
    assert {int(state["step"]) for state in saved["size"]["state"].values()} == {4}
    together = TwoHeads()
    together.configure_optimizers = lambda: {  # type: ignore[method-assign]
        "one": torch.optim.SGD(together.body.parameters(), lr=0.1),
        "two": torch.optim.SGD([*together.classes.parameters(), *together.size.parameters()], lr=0.1),
    }
    before = [p.detach().clone() for p in together.parameters()]
    make_trainer(max_epochs=1).fit(together, data)
    assert not any(torch.equal(a, b) for a, b in zip(before, together.parameters(), strict=True))


def test_C7_a_single_device_is_named(make_task, make_trainer, data) -> None:
    run = make_trainer(device="cpu").fit(make_task(), data)
    assert run.environment["device"] == "cpu"
    with pytest.raises(ValueError, match="device is 'toaster'"):
        make_trainer(device="toaster")


def test_C7_every_rank_has_its_share_of_an_order_that_changes_with_the_epoch() -> None:
    loader = treadle.Loader(torch.arange(20), 6, shuffle=True)
    epochs = []
    for epoch in range(2):
        shares = [list(loader.open(1, rank, 3).iterate(epoch)) for rank in range(3)]
        whole = list(loader.open(1).iterate(epoch))
        assert [torch.cat(parts).tolist() for parts in zip(*shares, strict=True)] == [
            batch.tolist() for batch in whole
        ]
        epochs.append(torch.cat(whole).tolist())
    assert epochs[0] != epochs[1]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(20))


class OneRankStops(treadle.Callback):
    def on_step_end(self, state: treadle.State) -> None:
        if state.engine.strategy.rank == 1 and state.progress.step == 3:
            state.request_stop("rank 1 has enough")


def test_C7_history_and_weights_come_back_from_two_processes_of_which_one_stops_both(
    make_task, data, tmp_path
) -> None:
    """With torch's DDP and one of its options."""
    task = make_task()
    trainer = treadle.Trainer(
        max_epochs=5,
        run_dir=tmp_path / "run",
        strategy=treadle.DDP(find_unused_parameters=True),
        callbacks=[OneRankStops()],
        progress=False,
    )
    run = treadle.launch(trainer, task, treadle.Loader(data, 8, shuffle=True), data, processes=2)
    assert (run.status, run.reason) == ("stopped", "rank 1 has enough")
    assert run.step in (3, 4)
    alone = treadle.Trainer(max_epochs=1, run_dir=None, progress=False)
    assert alone.evaluate(task, data)["test/loss"] == pytest.approx(run.history["val/loss"][-1], abs=1e-5)


# -- what the originals get wrong ---------------------------------------------------------------------------


def test_C_beat_several_losses_keep_their_names(make_trainer, data) -> None:
    task = TwoHeads()
    run = make_trainer(max_epochs=1).fit(task, data, data)
    with torch.no_grad():
        losses = {name: loss.item() for name, loss in task.compute_loss(data, None).items()}  # type: ignore[arg-type]
    assert {name: run.history[f"val/{name}"][0] for name in losses} == pytest.approx(losses)


def test_C_beat_losses_that_share_parameters_train(make_trainer, data) -> None:
    for task in (TwoHeads(), TwoTurns()):
        history = make_trainer(max_epochs=20).fit(task, treadle.Loader(data, 8, shuffle=True)).history
        for name in ("train/classes", "train/size"):
            assert history[name][-1] < history[name][0], (type(task), name)


def test_C_beat_the_last_window_is_not_scaled_down(make_task, make_trainer, data) -> None:
    task, known = make_task(), make_task()
    x, y = data[0][:10], data[1][:10]
    make_trainer(max_epochs=1, accumulate=4).fit(task, treadle.Loader((x, y), 1))
    optimizer = torch.optim.SGD(known.parameters(), lr=0.1)
    for window in (slice(0, 4), slice(4, 8), slice(8, 10)):
        optimizer.zero_grad()
        cross_entropy(known(x[window]), y[window]).backward()
        optimizer.step()
    for ours, theirs in zip(task.parameters(), known.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_C_beat_stopping_by_iterations_leaves_no_open_window(make_task, make_trainer, data) -> None:
    task = make_task()
    batches: list[int] = []
    runner = make_trainer(max_steps=2, accumulate=3)
    runner.on("batch_end")(lambda state: batches.append(1))
    assert runner.fit(task, treadle.Loader(data, 2)).step == 2
    assert len(batches) == 6  # iterations are whole windows
    assert all(parameter.grad is None for parameter in task.parameters())


def test_C_beat_steps_are_counted_right(make_task, make_trainer, data) -> None:
    for size, accumulate, steps in ((8, 1, 4), (8, 3, 2), (5, 2, 3), (26, 4, 1)):
        run = make_trainer(max_epochs=1, accumulate=accumulate).fit(make_task(), treadle.Loader(data, size))
        assert run.step == steps
        assert run.series("train/loss").steps.tolist() == list(range(1, steps + 1))


def test_C_beat_a_second_fit_trains_as_long_as_the_first(make_task, make_trainer, data) -> None:
    task, runner = make_task(), make_trainer(max_epochs=3)
    assert [runner.fit(task, data).history["epoch"] for _ in range(2)] == [[1, 2, 3], [1, 2, 3]]


def test_C_beat_the_cache_is_never_stale(make_task, make_trainer, data) -> None:
    task, runner = make_task(), make_trainer()
    first = runner.results(task, data)
    with torch.no_grad():
        task.model[0].weight[0, 0] += 0.5
    second = runner.results(task, data)
    assert not torch.equal(first.outputs, second.outputs)
    runner.fit(task, data)
    assert not torch.equal(second.outputs, runner.results(task, data).outputs)


def test_C_beat_evaluating_the_training_data_changes_nothing(make_model, make_trainer, data) -> None:
    def fit(look: bool) -> str:
        generator = torch.Generator().manual_seed(1)
        given = DataLoader(TensorDataset(*data), 8, shuffle=True, generator=generator)
        task = treadle.SupervisedTask(make_model(dropout=0.5), cross_entropy, torch.optim.SGD, 0.1)
        runner = make_trainer(max_epochs=3)
        if look:

            @runner.on("epoch_end")
            def evaluate(state: treadle.State) -> None:
                make_trainer().evaluate(task, given)
                make_trainer().predict(task, given)

        return runner.fit(task, given, also={"full": given} if look else None).weights_sha256

    assert fit(look=True) == fit(look=False)


@pytest.mark.parametrize("size", [1, 8, 25])
def test_C_beat_means_are_over_items(make_task, make_trainer, data, size) -> None:
    task = make_task(
        metrics={"accuracy": Accuracy(), "error": lambda o, t: (o.argmax(1) != t).float().mean()}
    )
    values = make_trainer().evaluate(task, treadle.Loader(data, size))
    scores = task.eval()(data[0])
    assert values["test/loss"] == pytest.approx(cross_entropy(scores, data[1]).item(), rel=1e-5)
    assert values["test/accuracy"] == pytest.approx((scores.argmax(1) == data[1]).float().mean().item())
    assert values["test/error"] == pytest.approx(1 - values["test/accuracy"])


class Stream(IterableDataset[Any]):
    """The samples one after another; nobody knows how many."""

    def __init__(self, *columns: Any) -> None:
        self.columns = columns

    def __iter__(self) -> Iterator[Any]:
        return zip(*self.columns, strict=True)


@pytest.mark.parametrize(
    "load",
    [lambda d: treadle.Loader(Stream(*d), 8), lambda d: DataLoader(Stream(*d), 8)],
    ids=["own", "given"],
)
def test_C_beat_streams_train(make_task, make_trainer, data, load: Callable[[Any], Any]) -> None:
    run = make_trainer(accumulate=2).fit(make_task(), load(data), load(data))
    known = make_trainer(accumulate=2).fit(make_task(), treadle.Loader(data, 8), data)
    assert run.weights_sha256 == known.weights_sha256
    assert run.history["val/loss"] == pytest.approx(known.history["val/loss"])


def test_C_beat_evaluation_every_zero_is_said() -> None:
    with pytest.raises(ValueError, match="epochs is 0"):
        treadle.Trainer(max_epochs=1, eval_every=treadle.Every(epochs=0))
    with pytest.raises(TypeError, match="eval_every is 0"):
        treadle.Trainer(max_epochs=1, eval_every=0)  # type: ignore[arg-type]


def test_C_beat_unknown_arguments_are_errors(make_task, data) -> None:
    with pytest.raises(TypeError, match="max_epoch"):
        treadle.Trainer(max_epoch=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="learning_rate"):
        make_task(learning_rate=1)
    with pytest.raises(TypeError, match="epoch"):
        treadle.fit(make_task().model, data, loss=cross_entropy, epochs=1, epoch=1)
    with pytest.raises(ValueError, match="on_epoch_ends"):
        treadle.Trainer(callbacks=[type("Typo", (treadle.Callback,), {"on_epoch_ends": print})()])


def test_C_beat_nine_samples_on_two_ranks_are_nine() -> None:
    loader = treadle.Loader(torch.arange(9), 4)
    shares = [torch.cat(list(loader.open(0, rank, 2).look())) for rank in range(2)]
    assert sorted(torch.cat(shares).tolist()) == list(range(9))


def test_C_beat_resuming_forgets_nothing(make_model, make_trainer, data, tmp_path) -> None:
    def fit(folder: str, epochs: int, resume: str | None = None) -> tuple[treadle.Run, Any]:
        stopping = treadle.callbacks.EarlyStopping("val/loss", patience=3, min_delta=10.0)
        task = treadle.SupervisedTask(make_model(dropout=0.5), cross_entropy, torch.optim.SGD, 0.1)
        runner = make_trainer(run_dir=tmp_path / folder, max_epochs=epochs, callbacks=[stopping], seed=3)
        loader = treadle.Loader(data, 8, shuffle=True)
        return runner.fit(task, loader, data, resume=resume), stopping

    whole, _ = fit("whole", 9)
    fit("part", 2)
    rest, stopping = fit("part", 9, resume="last")
    assert (rest.status, rest.reason, rest.epoch) == (whole.status, whole.reason, 4)
    assert stopping.waited == 3
    assert rest.history["val/loss"] == whole.history["val/loss"]
    assert rest.weights_sha256 == whole.weights_sha256  # dropout and order went on where they were


def test_C_beat_clipping_by_value_and_norm_together_in_fp16(make_task, make_trainer, data) -> None:
    norms: list[float] = []
    seen: list[float] = []
    runner = make_trainer(precision="fp16", clip_value=0.01, clip_norm=0.02)
    runner.on("before_optimizer_step")(lambda s: seen.append(treadle.gradient_norm(s.task).item()))
    runner.on("after_optimizer_step")(lambda s: norms.append(treadle.gradient_norm(s.task).item()))
    run = runner.fit(make_task(), treadle.Loader(data, 8))
    assert run.status == "finished"
    assert min(seen) > 0.05  # unscaled, not yet clipped: with the scale they would be thousands
    assert max(seen) < 50
    assert max(norms) <= 0.02 * 1.001
