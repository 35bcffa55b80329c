"""Augmentation on the device, messages, lists of callbacks, and the trial before a run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import treadle
from treadle.callbacks import (
    CallbackList,
    DeviceAugmentation,
    EarlyStopping,
    ExponentialMovingAverage,
    LearningRateMonitor,
    Messages,
    Trial,
)
from treadle.rng import capture

INPUTS = torch.arange(130.0).reshape(26, 5) / 130
TARGETS = torch.arange(26) % 3


class Present(treadle.SupervisedTask):
    """Computes its loss on `state.batch`, and keeps what it saw."""

    def compute_loss(self, batch: Any, state: treadle.State) -> Any:
        vars(self).setdefault("seen", []).append((state.mode, state.current_step, state.batch[0].clone()))
        return super().compute_loss(state.batch, state)


def present_task() -> Present:
    torch.manual_seed(6)
    model = nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.2), nn.Linear(4, 3))
    return Present(model, nn.CrossEntropyLoss(), torch.optim.SGD, lr=0.1)


def noisy(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return batch[0] + torch.randn_like(batch[0]), batch[1]


def test_augmentation_is_random_exact_and_for_training_only(
    fit: Callable[..., Any], resumes_exactly: Callable[..., Any]
) -> None:
    options = {"train": treadle.Loader((INPUTS, TARGETS), 8), "val": (INPUTS, TARGETS)}
    run, task = resumes_exactly(lambda: [DeviceAugmentation(noisy)], task=present_task, **options)
    noise = [
        inputs - INPUTS[(step - 1) % 4 * 8 :][: len(inputs)]
        for mode, step, inputs in task.seen
        if mode == "train"
    ]
    assert 0.5 < torch.cat(noise).std() < 1.5
    assert not torch.equal(noise[0], noise[1])
    assert not torch.equal(noise[0], noise[4])  # the same samples, an epoch later
    assert all(torch.equal(inputs, INPUTS) for mode, _, inputs in task.seen if mode == "val")
    again, _ = fit([DeviceAugmentation(noisy)], task=present_task(), **options)
    other, _ = fit([DeviceAugmentation(noisy, seed=9)], task=present_task(), **options)
    assert again.weights_sha256 == run.weights_sha256 != other.weights_sha256


def test_any_task_sees_the_augmented_batch(fit: Callable[..., Any]) -> None:
    assert fit([DeviceAugmentation(noisy)])[0].weights_sha256 != fit()[0].weights_sha256


def test_augmentation_does_not_touch_the_generators_of_training(fit: Callable[..., Any]) -> None:
    def draws_and_returns(batch: Any) -> Any:
        noisy(batch)
        return batch

    run, _ = fit([DeviceAugmentation(draws_and_returns)])
    assert run.weights_sha256 == fit()[0].weights_sha256
    with pytest.raises(TypeError, match="function is 3"):
        DeviceAugmentation(3)


def test_microbatches_of_a_step_get_different_noise(fit: Callable[..., Any]) -> None:
    task = present_task()
    fit([DeviceAugmentation(noisy)], task=task, accumulate=2, train=treadle.Loader((INPUTS * 0, TARGETS), 8))
    first, second = [inputs for mode, step, inputs in task.seen if mode == "train" and step == 1]
    assert not torch.equal(first, second)


class Reader(treadle.Callback):
    """Reads the board at every step's end and every epoch's end."""

    order = 5.0

    def __init__(self, board: Messages, until: str) -> None:
        self.board, self.until = board, until
        self.at_steps: list[Any] = []
        self.at_epochs: list[Any] = []

    def on_step_start(self, state: treadle.State) -> None:
        if state.current_step in (2, 7):
            self.board.post(state, "note", state.current_step, until=self.until)

    def on_step_end(self, state: treadle.State) -> None:
        self.at_steps.append(self.board.read(state, "note"))

    def on_epoch_end(self, state: treadle.State) -> None:
        self.at_epochs.append(self.board.read(state, "note"))


@pytest.mark.parametrize(
    ("until", "at_steps", "at_epochs"),
    [
        ("read", [None, 2, None, None, None, None, 7, None], [None, None]),
        ("step", [None, 2, None, None, None, None, 7, None], [None, None]),
        ("epoch", [None, 2, 2, 2, None, None, 7, 7], [2, 7]),
        ("fit", [None, 2, 2, 2, 2, 2, 7, 7], [2, 7]),
    ],
)
def test_messages_have_a_lifetime(
    fit: Callable[..., Any], until: str, at_steps: list[Any], at_epochs: list[Any]
) -> None:
    board = Messages()
    reader = Reader(board, until)
    fit([board, reader], max_epochs=2)
    assert reader.at_steps == at_steps
    assert reader.at_epochs == at_epochs
    assert not board._board


def test_messages_survive_a_restart(fit: Callable[..., Any]) -> None:
    board = Messages()
    reader = Reader(board, "epoch")
    run, _ = fit([board, reader], "whole", max_epochs=2)
    board = Messages()
    rest = Reader(board, "epoch")
    fit([board, rest], "cut", resume=run.path / "checkpoints" / "step-00000002", max_epochs=2)
    assert rest.at_steps == reader.at_steps[2:]
    assert rest.at_epochs == reader.at_epochs


def test_messages_of_a_cancelled_epoch_do_not_reach_the_next(fit: Callable[..., Any]) -> None:
    board = Messages()

    class Cancel(treadle.Callback):
        def on_step_end(self, state: treadle.State) -> None:
            if state.progress.step == 3:
                raise treadle.CancelEpoch

    class Greet(treadle.Callback):
        def on_epoch_start(self, state: treadle.State) -> None:
            board.post(state, "hello", state.progress.epoch, until="epoch")

    reader = Reader(board, "epoch")
    seen = []

    class Look(treadle.Callback):
        def on_step_end(self, state: treadle.State) -> None:
            seen.append((board.read(state, "note"), board.read(state, "hello"), board.keys(state)))

    fit([board, reader, Greet(), Look(), Cancel()], max_epochs=2)
    assert seen[2] == (2, 0, ["hello", "note"])
    assert seen[3] == (None, 1, ["hello"])


def test_what_can_be_posted(fit: Callable[..., Any]) -> None:
    board = Messages()

    class Post(treadle.Callback):
        def on_step_start(self, state: treadle.State) -> None:
            board.post(state, "anything", object(), until="step")
            board.post(state, "tensors", {"a": [torch.ones(2), 1.5, None]}, until="fit")
            with pytest.raises(TypeError, match=r"the message 'k'.x"):
                board.post(state, "k", {"x": object()}, until="epoch")
            with pytest.raises(ValueError, match="'read', 'step', 'epoch', 'fit'"):
                board.post(state, "k", 1, until="later")
            assert board.read(state, "k", default=5) == 5

    fit([board, Post()], "run", max_steps=2)


class Named(treadle.Callback):
    def __init__(self, label: str, calls: list[str], order: float = 0.0) -> None:
        self.label, self.calls, self.order, self.count = label, calls, order, 0

    @property
    def name(self) -> str:
        return self.label

    def on_epoch_end(self, state: treadle.State) -> None:
        self.calls.append(self.label)
        self.count += 1

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


def test_a_list_is_one_callback(fit: Callable[..., Any], resumes_exactly: Callable[..., Any]) -> None:
    calls: list[str] = []
    inner = CallbackList([Named("b", calls), Named("c", calls, order=9.0)], order=-1.0)
    parts = CallbackList([Named("a", calls), inner, Named("d", calls)])
    fit([Named("first", calls, order=-5.0), parts, Named("last", calls)], max_epochs=1)
    assert calls == ["first", "b", "c", "a", "d", "last"]
    hooks = treadle.Hooks([parts])
    assert len(hooks.on_epoch_end) == 1
    assert not hooks.on_step_end
    assert parts.name == "CallbackList(a, CallbackList(b, c), d)"
    run, _ = resumes_exactly(
        lambda: [
            CallbackList([EarlyStopping("train/loss", min_delta=9.0, patience=2), LearningRateMonitor()])
        ]
    )
    assert run.epoch == 3
    with pytest.raises(TypeError, match=r"not a treadle\.Callback"):
        CallbackList([print])
    with pytest.raises(ValueError, match="two callbacks are named 'x'"):
        CallbackList([Named("x", calls), Named("x", calls)])


def stateful_task(optimizer: Any = torch.optim.Adam) -> treadle.SupervisedTask:
    torch.manual_seed(6)
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Linear(4, 3))
    model.register_buffer("calls", torch.zeros(()), persistent=False)
    model.register_forward_hook(lambda module, inputs, output: module.calls.add_(1) and None)
    return treadle.SupervisedTask(
        model,
        nn.CrossEntropyLoss(),
        optimizer,
        lr=0.05,
        scheduler=treadle.Schedule(partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.9), every="step"),
        metrics={"accuracy": treadle.metrics.Accuracy()},
    )


class Stream(torch.utils.data.IterableDataset[tuple[Tensor, Tensor]]):
    def __init__(self) -> None:
        self.position = 0

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]

    def __iter__(self) -> Any:
        while self.position < len(INPUTS):
            self.position += 1
            yield INPUTS[self.position - 1] + torch.rand(()), TARGETS[self.position - 1]
        self.position = 0


DATASET = TensorDataset(INPUTS, TARGETS)


@pytest.mark.parametrize(
    "train",
    [
        lambda: treadle.Loader(DATASET, 8, shuffle=True),
        lambda: DataLoader(DATASET, 8, shuffle=True),
        lambda: DataLoader(DATASET, 8, shuffle=True, generator=torch.Generator().manual_seed(1)),
        lambda: treadle.Loader(Stream(), 8),
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_trial_leaves_no_trace(fit: Callable[..., Any], train: Any, precision: str) -> None:
    calls: list[int] = []

    class Count(treadle.Callback):
        def on_batch_start(self, state: treadle.State) -> None:
            calls[-1] += 1

    def callbacks() -> list[treadle.Callback]:
        calls.append(0)
        return [ExponentialMovingAverage(0.9), LearningRateMonitor(), Count()]

    options = {"precision": precision, "accumulate": 2}
    bare, plain = fit(callbacks(), task=stateful_task(), train=train(), **options)
    tried, task = fit([*callbacks(), Trial()], task=stateful_task(), train=train(), **options)
    assert tried.weights_sha256 == bare.weights_sha256
    columns = [name for name in bare.history if not name.startswith("time/")]
    assert [list(tried.history[name]) for name in columns] == [list(bare.history[name]) for name in columns]
    assert calls == [12, 12]
    assert tried.names() == bare.names()
    for name in bare.names():
        assert tried.series(name).values.tolist() == bare.series(name).values.tolist()
        assert tried.series(name).steps.tolist() == bare.series(name).steps.tolist()
    assert torch.equal(task.model.calls, plain.model.calls)


class Broken(treadle.SupervisedTask):
    part = ""

    def compute_loss(self, batch: Any, state: treadle.State) -> Any:
        if state.mode == self.part:
            raise RuntimeError("broken")
        return super().compute_loss(batch, state)

    def predict_step(self, batch: Any, state: treadle.State) -> Any:
        if self.part == "predict":
            raise RuntimeError("broken")
        return super().predict_step(batch, state)


@pytest.mark.parametrize(
    ("part", "said"),
    [("train", "a training step"), ("val", "an evaluation of 'val'"), ("predict", "a prediction")],
)
def test_a_trial_finds_what_is_broken_before_training(fit: Callable[..., Any], part: str, said: str) -> None:
    task = Broken(nn.Linear(5, 3), nn.CrossEntropyLoss(), torch.optim.SGD, lr=0.1)
    task.part = part
    before, generators = task.model.weight.clone(), []

    class Look(treadle.Callback):
        order = 799.0

        def on_fit_start(self, state: treadle.State) -> None:
            generators.append(capture()["torch"])

        def on_exception(self, state: treadle.State) -> None:
            generators.append(capture()["torch"])

    with pytest.raises(RuntimeError, match="broken") as caught:
        fit([Trial(), Look()], task=task)
    assert said in caught.value.__notes__[0]
    assert torch.equal(task.model.weight, before)
    assert torch.equal(*generators)


def test_a_trial_finds_what_cannot_be_saved_and_passes_over_what_is_not_there(
    fit: Callable[..., Any],
) -> None:
    class Unsaved(treadle.Callback):
        def state_dict(self) -> dict[str, Any]:
            return {"function": print}

    with pytest.raises(TypeError, match="cannot be saved") as caught:
        fit([Trial(), Unsaved()])
    assert "a checkpoint" in caught.value.__notes__[0]

    class Silent(treadle.Task):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(5, 1)

        def compute_loss(self, batch: Any, state: treadle.State) -> Tensor:
            return self.layer(batch[0]).square().mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    assert fit([Trial(1)], task=Silent(), val=None)[0].step == 12  # it does not predict
    with pytest.raises(ValueError, match="batches is 0"):
        Trial(0)

    class FromNoise(Silent):
        def predict_step(self, batch: Any, state: treadle.State) -> Any:
            return self.layer(batch)  # of something else than training batches

    with pytest.raises(TypeError) as other:
        fit([Trial(1)], task=FromNoise(), val=None)
    assert "Trial(predict=False)" in other.value.__notes__[1]
    assert fit([Trial(1, predict=False)], task=FromNoise(), val=None)[0].step == 12


def test_a_resumed_run_is_not_tried_again(fit: Callable[..., Any]) -> None:
    run, _ = fit([Trial()], "run", max_epochs=1)
    trial = Trial()
    trial._try = lambda state: pytest.fail("tried again")
    whole, _ = fit([], max_epochs=2)
    assert fit([trial], "run", resume=run.path, max_epochs=2)[0].weights_sha256 == whole.weights_sha256
