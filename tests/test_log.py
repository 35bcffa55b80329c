"""What is logged is what was logged: not what became of the tensor later."""

from __future__ import annotations

import random
from math import isnan
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import treadle
from treadle.engine import Engine
from treadle.log import MetricLog, points_of
from treadle.parallel.log import SharedLog
from treadle.pending import DevicePending, Pending
from treadle.scalars import read_scalars

X, Y = torch.arange(24.0).reshape(24, 1) / 24, torch.ones(24, 1)


class Logging(treadle.SupervisedTask):
    """Logs in the ways that go wrong where a log keeps what it is given."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Linear(1, 1), mse_loss, torch.optim.SGD, lr=0.1)
        self.register_buffer("running", torch.zeros(()))
        self.temperature = nn.Parameter(torch.ones(()))
        self.parts = torch.zeros(3)
        self.expected: dict[str, list[float]] = {}
        self.penalty_from = 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def note(self, name: str, value: Tensor, state: treadle.State) -> None:
        self.expected.setdefault(name, []).append(float(value.detach().double()))
        state.log(name, value)

    def compute_loss(self, batch: Any, state: treadle.State) -> Tensor:
        loss = mse_loss(self.model(batch[0]), batch[1]) * self.temperature
        self.note("plain", loss, state)
        if state.progress.step >= self.penalty_from:
            loss += 1.0
        self.note("temperature", self.temperature, state)
        with torch.no_grad():
            self.running.mul_(0.5).add_(loss)
        self.note("running", self.running, state)
        for number in range(3):
            self.parts[number] = loss.detach() * number
            self.note(f"part_{number}", self.parts[number], state)
        return loss


@pytest.mark.parametrize("log_every", [1, 4, 100])
@pytest.mark.parametrize("pending", [Pending, DevicePending])
def test_a_value_is_what_it_was_when_it_was_logged(
    log_every: int, pending: type[Pending], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "new_pending", lambda _: pending())
    task = Logging()
    trainer = treadle.Trainer(max_epochs=2, seed=0, run_dir=None, progress=False, log_every=log_every)
    run = trainer.fit(task, treadle.Loader((X, Y), 2))
    assert len(task.expected) == 6
    for name, values in task.expected.items():
        assert run.series(f"train/{name}").values.tolist() == values


@pytest.mark.usefixtures("values_stay_on_the_device")
def test_a_tensor_that_changes_after_it_was_trusted_is_said_to_be_lost() -> None:
    task = Logging()
    task.penalty_from = 5  # a penalty that is added in place from the sixth step on
    trainer = treadle.Trainer(max_epochs=2, seed=0, run_dir=None, progress=False, log_every=8)
    with pytest.warns(UserWarning, match=r"log: 3 values of 'plain' are lost.*changed in place") as caught:
        run = trainer.fit(task, treadle.Loader((X, Y), 2))
    assert len(caught) == 1
    series = run.series("train/plain")
    assert series.steps.tolist() == [1, 2, 3, 4, 5, *range(9, 25)]
    assert series.values.tolist() == [task.expected["plain"][step - 1] for step in series.steps.tolist()]


@pytest.mark.parametrize("pending", [Pending, DevicePending])
def test_a_tensor_of_several_elements_is_refused(
    pending: type[Pending], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "new_pending", lambda _: pending())
    trainer = treadle.Trainer(max_epochs=1, run_dir=None, progress=False)

    @trainer.on("after_loss")
    def log(state: treadle.State) -> None:
        state.log("rows", torch.zeros(2, 3))

    with pytest.raises(ValueError, match=r"log: 'rows' has shape \(2, 3\); it must be a number or a tensor"):
        trainer.fit(treadle.SupervisedTask(nn.Linear(1, 1), mse_loss), treadle.Loader((X, Y), 2))


@pytest.mark.parametrize("pending", [Pending, DevicePending])
def test_one_value_under_a_short_and_a_full_name_is_one_curve(
    pending: type[Pending], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "new_pending", lambda _: pending())
    trainer = treadle.Trainer(max_epochs=1, run_dir=None, progress=False, log_every=5)

    @trainer.on("step_end")
    def log(state: treadle.State) -> None:
        state.log("mine" if state.progress.step % 2 else "train/mine", torch.tensor(state.progress.step))

    run = trainer.fit(treadle.SupervisedTask(nn.Linear(1, 1), mse_loss), treadle.Loader((X, Y), 2))
    series = run.series("train/mine")
    assert series.steps.tolist() == series.values.tolist() == list(range(1, 13))


@pytest.mark.usefixtures("values_stay_on_the_device")
def test_inference_tensors_can_be_logged() -> None:
    class Inferring(treadle.SupervisedTask):
        def eval_step(self, batch: Any, state: treadle.State) -> None:
            with torch.inference_mode():
                super().eval_step(batch, state)

    task = Inferring(nn.Linear(1, 1), mse_loss)
    trainer = treadle.Trainer(run_dir=None, progress=False)
    found = trainer.evaluate(task, treadle.Loader((X, Y), 2))
    assert found["test/loss"] == pytest.approx(float(mse_loss(task.model(X), Y).detach()), abs=1e-6)


def plain_merge(entries: list[tuple[str, int, float, float]]) -> tuple[dict[Any, float], dict[str, Any]]:
    """Every rule, one entry after another."""
    points: dict[Any, list[tuple[float, float]]] = {}
    for name, step, value, weight in entries:
        points.setdefault((step, name), []).append((value, weight))
    values, sums = {}, {}
    for (step, name), parts in sorted(points.items(), key=lambda item: item[0][0]):
        total, weight = 0.0, 0.0
        for value, items in parts:
            total += value * items if items else 0.0
            weight += items
        alone = [value for value, items in parts if items]
        mean = alone[0] if len(alone) == 1 else total / weight if weight else float("nan")
        values[name, step] = mean
        known = sums.setdefault(name, [0.0, 0.0])
        known[0] += total
        known[1] += weight
    return values, sums


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("shared", [False, True])
def test_points_and_means_are_those_of_one_entry_after_another(seed: int, shared: bool) -> None:
    draw = random.Random(seed)
    log = SharedLog("train", lambda tree: [tree]) if shared else MetricLog("train")
    sums: dict[str, list[float]] = {}
    for _ in range(3):
        entries = []
        for step in range(draw.randrange(1, 9)):
            for name in draw.sample(["a", "b", "c"], draw.randrange(1, 4)):
                for _ in range(draw.choice([1, 1, 3])):
                    entries.append((name, step, draw.uniform(-1, 1), float(draw.choice([0, 1, 2, 7]))))
        for name, step, value, weight in entries:
            log.pending.columns[name].append((step, value, weight, None))
        values, added = plain_merge(entries)
        found = {(name, step): value for name, step, value in points_of(log.flush())}
        assert found.keys() == {(f"train/{name}", step) for name, step in values}
        for (name, step), value in values.items():
            same = found[f"train/{name}", step]
            assert same == value or (isnan(same) and isnan(value))
        for name, (total, weight) in added.items():
            known = sums.setdefault(f"train/{name}", [0.0, 0.0])
            known[0], known[1] = known[0] + total, known[1] + weight
    assert log.means() == pytest.approx(
        {name: total / weight if weight else float("nan") for name, (total, weight) in sums.items()},
        nan_ok=True,
        rel=1e-14,
    )


def test_numbers_of_every_kind_are_read_to_the_last_bit() -> None:
    large = 2**53 - 1
    given = [
        torch.tensor(large),
        torch.tensor(0.1),
        torch.tensor(0.1, dtype=torch.float64),
        torch.tensor([[3.0]]),
        torch.tensor(True),
        torch.tensor(0.3, dtype=torch.bfloat16),
        7,
        0.2,
        True,
    ]
    expected = [float(one.double()) if isinstance(one, Tensor) else float(one) for one in given]
    assert read_scalars(given) == expected
    for one, number in zip(given, expected, strict=True):
        assert read_scalars([one]) == read_scalars([one, one])[:1] == [number]
        assert all(type(value) is float for value in read_scalars([one, one]))
    assert read_scalars([]) == []


@pytest.mark.parametrize("pending", [Pending, DevicePending])
def test_a_part_of_a_tensor_is_refused(pending: type[Pending], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a DTensor gives when it is read is this process's part alone."""

    class Sharded(Tensor):
        def full_tensor(self) -> Tensor:
            raise NotImplementedError

    monkeypatch.setattr(Engine, "new_pending", lambda _: pending())
    trainer = treadle.Trainer(max_epochs=1, run_dir=None, progress=False)
    trainer.on("after_loss")(lambda state: state.log("norm", torch.ones(()).as_subclass(Sharded)))
    with pytest.raises(ValueError, match=r"log: 'norm' is a Sharded, of which each process has a part"):
        trainer.fit(treadle.SupervisedTask(nn.Linear(1, 1), mse_loss), treadle.Loader((X, Y), 2))


def test_points_come_by_step_where_a_name_is_logged_and_recorded() -> None:
    points: list[int] = []
    trainer = treadle.Trainer(max_epochs=1, run_dir=None, progress=False, log_every=100)

    @trainer.on("log")
    def keep(state: treadle.State) -> None:
        points.extend(step for name, step, _ in state.points if name == "train/loss")

    trainer.on("step_end")(lambda state: state.record("train/loss", 0.0))
    trainer.fit(treadle.SupervisedTask(nn.Linear(1, 1), mse_loss), treadle.Loader((X, Y), 2))
    assert points == sorted(points)
    assert len(points) == 24
