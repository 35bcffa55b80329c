"""Looking for a learning rate or a batch size leaves no trace: the fit afterwards is the one without it."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler

import treadle
from treadle import rng
from treadle.finders import find_batch_size, find_learning_rate, untouched

SAMPLES, FEATURES = 22, 5


class Stateful(Dataset[tuple[Tensor, Tensor]]):
    """Samples with noise from generators of its own and from the global ones, and a count."""

    def __init__(self) -> None:
        self.generators = (torch.Generator().manual_seed(1), np.random.default_rng(2), random.Random(3))
        self.legacy = np.random.RandomState(4)
        self.counts = {"read": 0}
        self.order: list[int] = []

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.counts["read"] += 1
        self.order.append(index)
        ours, numpys, pythons = self.generators
        noise = torch.rand(FEATURES, generator=ours) + torch.rand(FEATURES)
        shift = numpys.random() + pythons.random() + self.legacy.rand() + np.random.rand() + random.random()
        return noise + index / SAMPLES + 0.1 * float(shift) + 1e-4 * self.counts["read"], torch.tensor(
            index % 3
        )


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    """Goes on where it was left, and keeps its position where only `state_dict` says it."""

    __slots__ = ("_position",)

    def __init__(self) -> None:
        self._position = 0

    def __iter__(self) -> Any:
        for _ in range(SAMPLES):
            self._position += 1
            yield torch.full((FEATURES,), float(self._position % 7)), torch.tensor(self._position % 3)

    def state_dict(self) -> dict[str, int]:
        return {"position": self._position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._position = state["position"]


class Noisy(nn.Module):
    """Dropout, running statistics, a buffer that is not saved and one that is replaced, and a plain count."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(FEATURES, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3)
        )
        self.register_buffer("seen", torch.zeros(()), persistent=False)
        self.register_buffer("scale", torch.ones(()))
        self.calls, self.history, self.plain = 0, [0.0], torch.zeros(2)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
            self.history.append(float(self.calls))
            self.seen += 1
            self.scale = self.scale * 1.01
            self.plain.add_(1)
        return self.layers(inputs) * self.scale + 1e-3 * (self.calls + self.plain.sum() + self.seen)


def make_task(scheduler: Any = None, optimizer: Any = None) -> treadle.SupervisedTask:
    torch.manual_seed(7)
    return treadle.SupervisedTask(
        Noisy(),
        cross_entropy,
        optimizer or partial(torch.optim.SGD, momentum=0.9, lr=0.05),
        scheduler=scheduler,
        metrics={"accuracy": treadle.metrics.Accuracy()},
    )


def given(dataset: Callable[[], Any], **options: Any) -> Callable[[], Any]:
    return lambda: DataLoader(dataset(), 4, **options, generator=torch.Generator().manual_seed(5))


def sampled() -> Any:
    data = Stateful()
    sampler = RandomSampler(data, generator=torch.Generator().manual_seed(9))
    return DataLoader(data, 4, sampler=sampler)


DATA: dict[str, Callable[[], Any]] = {
    "loader": lambda: treadle.Loader(Stateful(), 4, shuffle=True, seed_samples=False),
    "stream": lambda: treadle.Loader(Stream(), 4),
    "dataset": Stateful,
    "dataloader": given(Stateful, shuffle=True),
    "dataloader_global": lambda: DataLoader(Stateful(), 4, shuffle=True),
    "dataloader_sampler": sampled,
    "dataloader_stream": given(Stream),
}


def learning_rate(trainer: treadle.Trainer, task: treadle.Task, train: Any) -> None:
    finding = find_learning_rate(trainer, task, train, low=1e-4, high=1.0, factor=2, stop_at=1e9)
    assert len(finding.rates) > 7, "more than an epoch"


def batch_size(trainer: treadle.Trainer, task: treadle.Task, train: Any) -> None:
    assert find_batch_size(trainer, task, train, most=9) == 9


def a_failing_search(trainer: treadle.Trainer, task: treadle.Task, train: Any) -> None:
    """The loss raises in the middle of the second epoch."""
    loss, calls = task.loss, []

    def failing(output: Tensor, target: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt("in the middle")
        return loss(output, target)

    task.loss = failing
    try:
        with pytest.raises(KeyboardInterrupt, match="in the middle"):
            find_learning_rate(trainer, task, train, stop_at=1e9)
    finally:
        task.loss = loss


def global_state() -> Any:
    python, numpy = random.getstate(), np.random.get_state()
    return python, numpy[1].tolist(), numpy[2:], torch.get_rng_state().tolist()


def trainer_for(folder: Path | None, **options: Any) -> treadle.Trainer:
    return treadle.Trainer(
        max_epochs=2,
        seed=11,
        run_dir=folder,
        progress=False,
        checkpoint=None if folder is None else treadle.Checkpoints(every=treadle.Every(steps=1)),
        **options,
    )


def outcome(run: treadle.Run, task: treadle.Task, train: Any) -> dict[str, Any]:
    dataset = getattr(train, "dataset", train)
    model, optimizer = task.model, task.optimizers["optimizer"]
    generator = getattr(train, "generator", None)
    return {
        "weights": run.weights_sha256,
        "losses": run.series("train/loss").values.tolist(),
        "accuracy": list(run.history["train/accuracy"]),
        "read": getattr(dataset, "order", None),
        "model": (model.calls, model.history, model.plain.tolist(), float(model.seen), float(model.scale)),
        "momentum": [state["momentum_buffer"].tolist() for state in optimizer.state.values()],
        "generator": None if generator is None else generator.get_state().tolist(),
        "global": global_state(),
    }


@pytest.mark.parametrize("search", [learning_rate, batch_size, a_failing_search])
@pytest.mark.parametrize("name", DATA)
def test_the_fit_afterwards_is_bitwise_the_one_without(name: str, search: Any) -> None:
    """Before the first fit, and between the first and the second, where momentum is there already."""

    def outcomes(*searches: Any) -> list[dict[str, Any]]:
        rng.seed_all(0)
        task, train, trainer = make_task(), DATA[name](), trainer_for(None, log_every=1)
        found = []
        for one in searches:
            if one is not None:
                before = global_state()
                one(trainer, task, train)
                assert global_state() == before
            found.append(outcome(trainer.fit(task, train), task, train))
        return found

    without = outcomes(None, None)
    assert without[0]["weights"] != without[1]["weights"]
    assert outcomes(search, search) == without


@pytest.mark.parametrize("persistent", [True, False])
def test_workers_of_a_given_dataloader(persistent: bool) -> None:
    """Those that persist keep what they have: the search starts others and ends them."""

    def outcomes(search: Any) -> list[Any]:
        task, trainer = make_task(), trainer_for(None, log_every=1)
        train = given(Stateful, num_workers=1, shuffle=True, persistent_workers=persistent)()
        first = outcome(trainer.fit(task, train), task, train)
        own = train._iterator
        if search is not None:
            search(trainer, task, train)
        assert train._iterator is own
        return [first, outcome(trainer.fit(task, train), task, train)]

    assert outcomes(partial(find_learning_rate, factor=100, stop_at=1e9)) == outcomes(None)


def test_task_trainer_and_disk_are_as_they_were(tmp_path: Path) -> None:
    """No optimizer is made, no attribute set, no callback called, no folder written."""
    fired: list[str] = []

    class Loud(treadle.Callback):
        def on_fit_start(self, state: treadle.State) -> None:
            fired.append("called")

    trainer = trainer_for(tmp_path / "run", callbacks=[Loud()], precision="fp16")
    scaler = str(trainer.precision.state_dict())
    task = make_task(scheduler=ReduceLROnPlateau)  # which needs validation data that a search has not
    attributes = dict(vars(task))
    frozen = task.model.layers[0].bias
    frozen.requires_grad_(False)
    frozen.grad = torch.ones(16)
    gradient = frozen.grad
    task.model.layers[1].eval()
    before = {name: value.clone() for name, value in task.state_dict().items()}
    for search in (learning_rate, batch_size):
        search(trainer, task, Stateful())
        assert vars(task) == attributes
        assert task.optimizers == {}
        assert not task.model.layers[1].training
        assert not frozen.requires_grad
        assert frozen.grad is gradient
        assert frozen.grad.tolist() == [1.0] * 16
        assert all(p.grad is None for p in task.parameters() if p is not frozen)
        for name, value in task.state_dict().items():
            assert torch.equal(value, before[name]), name
    assert str(trainer.precision.state_dict()) == scaler
    assert trainer.max_epochs == 2
    assert fired == []
    assert list(tmp_path.iterdir()) == []


def test_an_optimizer_given_as_an_object_is_as_it_was() -> None:
    model = nn.Linear(FEATURES, 3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=torch.tensor(0.1))
    task = treadle.SupervisedTask(model, cross_entropy, optimizer)
    attributes = dict(vars(optimizer))
    group = dict(optimizer.param_groups[0])
    learning_rate(trainer_for(None), task, Stateful())
    assert vars(optimizer) == attributes
    assert optimizer.param_groups[0] == group
    assert float(optimizer.param_groups[0]["lr"]) == pytest.approx(0.1)
    assert optimizer.state == {}


def test_what_cannot_be_undone_is_refused() -> None:
    lazy = treadle.SupervisedTask(nn.LazyLinear(3), cross_entropy)
    with pytest.raises(ValueError, match="lazy parameters that are not made yet"):
        find_learning_rate(trainer_for(None), lazy, Stateful())
    samples = ((torch.zeros(FEATURES), torch.tensor(0)) for _ in range(9))
    for train in (samples, treadle.Loader(samples, 4)):
        with pytest.raises(ValueError, match="generator, which can be read only once"):
            find_learning_rate(trainer_for(None), make_task(), train)


def test_everything_is_put_back_even_where_one_thing_cannot_be() -> None:
    class Stubborn(Stream):
        def load_state_dict(self, state: dict[str, int]) -> None:
            raise RuntimeError("no way back")

    task = make_task()
    weight = task.model.layers[0].weight
    before = weight.detach().clone()

    def change() -> None:
        with untouched(task, [Stubborn()]), torch.no_grad():
            weight.zero_()
            weight.requires_grad_(False)
            task.extra = 1

    with pytest.raises(RuntimeError, match="no way back"):
        change()
    assert torch.equal(weight, before)
    assert weight.requires_grad
    assert not hasattr(task, "extra")
