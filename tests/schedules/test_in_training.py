"""Schedules in a fit: the same trace through resume, accumulation and a longer run; steps known before."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.optim import lr_scheduler
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler, TensorDataset

import treadle
from treadle import schedules
from treadle.schedules import Epochs, Schedule

SAMPLES = 22  # at batch 4: six batches, the last of two


def samples(count: int = SAMPLES) -> TensorDataset:
    inputs = torch.linspace(-1, 1, 2 * count).reshape(count, 2)
    return TensorDataset(inputs, inputs.sum(1, keepdim=True) ** 2)


class Rates(treadle.Callback):
    """What every step is taken with: its number, then the rate and the momentum of every group."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, list[float]]] = []
        self.total: int | None = None

    def on_fit_start(self, state: treadle.State) -> None:
        self.total = state.total_steps

    def on_step_start(self, state: treadle.State) -> None:
        groups = [group for one in state.optimizers.values() for group in one.param_groups]
        values = [float(group[key]) for group in groups for key in ("lr", "momentum")]
        self.seen.append((state.progress.step + 1, values))


def make_task(scheduler: Any) -> treadle.Task:
    torch.manual_seed(3)
    return treadle.SupervisedTask(
        nn.Linear(2, 1), mse_loss, partial(torch.optim.SGD, momentum=0.9), lr=0.05, scheduler=scheduler
    )


def fit(
    scheduler: Any, folder: Path | None = None, resume: Any = None, train: Any = None, **options: Any
) -> Rates:
    rates = Rates()
    if "max_steps" not in options:
        options.setdefault("max_epochs", 3)
    trainer = treadle.Trainer(
        seed=1,
        run_dir=folder,
        callbacks=[rates],
        checkpoint=None
        if folder is None
        else treadle.Checkpoints(every=treadle.Every(steps=1), keep_last=None),
        progress=False,
        **options,
    )
    train = treadle.Loader(samples(), 4, shuffle=True) if train is None else train
    trainer.fit(make_task(scheduler), train, samples(), resume=resume)
    return rates


def sequence(optimizer: Any) -> Any:
    first = lr_scheduler.LinearLR(optimizer, total_iters=3)
    return lr_scheduler.SequentialLR(
        optimizer, [first, lr_scheduler.MultiStepLR(optimizer, [2, 5])], milestones=[4]
    )


ANY: dict[str, Callable[[], Any]] = {
    "cosine": lambda: schedules.CosineDecay(Epochs(0.5)),
    "restarts": lambda: schedules.CosineWithRestarts(2, 0.1),
    "one_cycle": schedules.OneCycle,
    "wsd": lambda: schedules.WarmupStableDecay(2, "1 epoch"),
    "lambda": lambda: schedules.Lambda([lambda step: 0.9**step]),
    "stairs": lambda: schedules.MultiStepDecay([Epochs(1.5), 0.25]),
    "torch_by_step": lambda: Schedule(partial(lr_scheduler.CyclicLR, base_lr=0.01, max_lr=0.1), "step"),
    "torch_sequence": lambda: Schedule(sequence, "step"),
    "torch_by_epoch": lambda: partial(lr_scheduler.MultiStepLR, milestones=[1, 2]),
    "plateau_val": lambda: partial(lr_scheduler.ReduceLROnPlateau, patience=0, threshold=0.9),
    "plateau_train": lambda: Schedule(
        partial(lr_scheduler.ReduceLROnPlateau, patience=0, threshold=0.9), monitor="train/loss"
    ),
}


@pytest.mark.parametrize("name", ANY)
def test_c8_the_trace_is_the_same_through_resume_at_every_cut(tmp_path: Path, name: str) -> None:
    whole = fit(ANY[name](), tmp_path / "whole")
    assert len(whole.seen) == 18 == whole.total
    assert len({rates[0] for _, rates in whole.seen}) > 1, "a schedule that does something"
    for cut in range(1, 18, 1 if name in ("cosine", "one_cycle") else 4):
        checkpoint = tmp_path / "whole" / "checkpoints" / f"step-{cut:08d}"
        rest = fit(ANY[name](), resume=checkpoint)
        assert rest.seen == whole.seen[cut:]


def test_a_mid_epoch_schedule_counts_steps() -> None:
    """Six steps an epoch: half an epoch of warm-up is three steps, a decay of 1.5 epochs nine."""
    rates = [rate for _, (rate, _) in fit(schedules.LinearDecay(Epochs(0.5), Epochs(1.5))).seen]
    expected = [0, 1 / 3, 2 / 3] + [1] * 7 + [1 - step / 9 for step in range(1, 9)]
    assert rates == pytest.approx([0.05 * factor for factor in expected])


@pytest.mark.parametrize(
    "make",
    [
        lambda: schedules.Constant(3),
        lambda: schedules.WarmupStableDecay(3, 4),
        lambda: schedules.InverseSquareRootDecay(3),
        lambda: schedules.CosineDecay(total=30),
    ],
)
def test_c8_a_longer_run_goes_on_as_if_it_had_been_meant(tmp_path: Path, make: Callable[[], Any]) -> None:
    """Cut before the decay, the trace and so the weights are those of the longer run from its start."""
    fit(make(), tmp_path / "short", max_steps=12)
    whole = fit(make(), tmp_path / "whole", max_steps=20)
    longer = fit(make(), tmp_path / "on", tmp_path / "short/checkpoints/step-00000008", max_steps=20)
    assert longer.seen == whole.seen[8:]
    shas = [treadle.Run.open(tmp_path / name).weights_sha256 for name in ("whole", "on")]
    assert shas[0] == shas[1]


@pytest.mark.parametrize("make", [schedules.CosineDecay, lambda: schedules.WarmupStableDecay(3, 4)])
@pytest.mark.parametrize("cut", [5, 12])
def test_a_longer_run_follows_its_own_curve_from_the_next_step(
    tmp_path: Path, make: Callable[[], Any], cut: int
) -> None:
    """Even from the very end of the shorter one, where the rate was at its lowest."""
    fit(make(), tmp_path / "short", max_steps=12)
    whole = fit(make(), max_steps=20)
    longer = fit(make(), None, tmp_path / "short" / "checkpoints" / f"step-{cut:08d}", max_steps=20)
    assert longer.seen == whole.seen[cut:]


@pytest.mark.parametrize("options", [{"max_epochs": 3}, {"max_steps": 9}])
def test_c3_accumulation_changes_nothing_but_the_number_of_steps(options: dict[str, int]) -> None:
    """Two batches of 2 a step are one batch of 4; the rates belong to steps, not to batches."""
    make = ANY["cosine"]
    whole = fit(make(), **options)
    split = fit(make(), train=treadle.Loader(samples(), 2, shuffle=True), accumulate=2, **options)
    micro = fit(make(), microbatch_size=1, **options)
    assert whole.seen == split.seen == micro.seen


class Sized(IterableDataset[tuple[Tensor, Tensor]]):
    def __iter__(self) -> Any:
        return iter(samples())

    def __len__(self) -> int:
        return SAMPLES


def batches_of(sizes: list[int]) -> Any:
    class Cutter(BatchSampler):
        def __init__(self) -> None:
            super().__init__(SequentialSampler(samples()), 4, False)

        def __iter__(self) -> Any:
            position = 0
            for size in sizes:
                yield list(range(position, position + size))
                position += size

        def __len__(self) -> int:
            return len(sizes)

    return DataLoader(samples(), batch_sampler=Cutter())


LOADERS: dict[str, Callable[[], Any]] = {
    "loader": lambda: treadle.Loader(samples(), 4),
    "loader_drop_last": lambda: treadle.Loader(samples(), 4, drop_last=True),
    "loader_stream": lambda: treadle.Loader(Sized(), 4),
    "tensors": lambda: samples().tensors,
    "dataloader": lambda: DataLoader(samples(), 4, shuffle=True),
    "dataloader_drop_last": lambda: DataLoader(samples(), 4, drop_last=True),
    "dataloader_stream": lambda: DataLoader(Sized(), 4),
    "dataloader_batch_sampler": lambda: batches_of([1, 7, 3]),
    "dataloader_unbatched": lambda: DataLoader(samples(), batch_size=None),
    "ready_batches": lambda: treadle.Source([(torch.ones(3, 2), torch.ones(3, 1))] * 5),
}


@pytest.mark.parametrize("accumulate", [1, 3, 4])
@pytest.mark.parametrize("name", LOADERS)
def test_c3_the_number_of_steps_is_known_before_training(name: str, accumulate: int) -> None:
    for options in ({"max_epochs": 2}, {"max_steps": 5}):
        rates = fit(None, train=LOADERS[name](), accumulate=accumulate, **options)
        assert rates.total == len(rates.seen), options


def test_without_a_length_it_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    stream = treadle.Loader(lambda: iter(samples()), 4)
    with pytest.raises(ValueError, match=r"CosineDecay ends with the run.*training data have no length"):
        fit(schedules.CosineDecay(), tmp_path / "run", train=stream)
    assert not (tmp_path / "run").exists()
    assert len(fit(schedules.CosineDecay(2), train=stream, max_steps=8).seen) == 8


class TwoOptimizers(treadle.SupervisedTask):
    """An optimizer for the weight, with two groups' worth of rates, and one for the bias."""

    def configure_optimizers(self) -> Any:
        layer = self.model
        return {
            "weight": torch.optim.SGD([{"params": [layer.weight], "lr": 0.5}], lr=0.1),
            "bias": torch.optim.SGD([layer.bias], lr=1.0),
        }

    def configure_schedulers(self) -> Any:
        return {
            "bias": schedules.LinearDecay(),
            "weight": partial(lr_scheduler.StepLR, step_size=1, gamma=0.5),
        }


def test_c6_several_optimizers_each_with_its_own_schedule_by_name(tmp_path: Path) -> None:
    def run(folder: Path, resume: Any = None) -> Rates:
        rates = Rates()
        trainer = treadle.Trainer(
            max_epochs=2,
            seed=0,
            run_dir=folder,
            callbacks=[rates],
            progress=False,
            checkpoint=treadle.Checkpoints(every=treadle.Every(steps=1), keep_last=None),
        )
        torch.manual_seed(0)
        task = TwoOptimizers(nn.Linear(2, 1), mse_loss)
        trainer.fit(task, treadle.Loader(samples(), 4), resume=resume)
        return rates

    whole = run(tmp_path / "whole")
    seen = [(weight, bias) for _, (weight, _, bias, _) in whole.seen]
    assert seen == [(0.5 if step < 6 else 0.25, pytest.approx(1 - step / 12)) for step in range(12)]
    for cut in (3, 6, 9):
        rest = run(tmp_path / f"cut-{cut}", tmp_path / "whole" / "checkpoints" / f"step-{cut:08d}")
        assert rest.seen == whole.seen[cut:]
    history = treadle.Run.open(tmp_path / "whole").history
    assert history["learning_rate/weight"] == [0.5, 0.25]


@pytest.mark.parametrize(
    ("monitor", "falls"), [("val/loss", [1.0, 1.0, 0.5, 0.25]), ("train/loss", [1.0, 1.0, 0.5, 0.25])]
)
def test_c8_plateau_on_a_result_of_validation_or_training(monitor: str, falls: list[float]) -> None:
    """Nothing ever improves by so much, so the rate falls after every epoch but the first."""
    schedule = Schedule(
        partial(lr_scheduler.ReduceLROnPlateau, factor=0.5, patience=0, threshold=9.0, threshold_mode="abs"),
        monitor=monitor,
    )
    rates = [rate for _, (rate, _) in fit(schedule, max_epochs=4).seen]
    assert rates == [0.05 * fall for fall in falls for _ in range(6)]


def test_c8_plateau_says_what_will_never_come() -> None:
    trainer = treadle.Trainer(max_epochs=1, run_dir=None, checkpoint=None, progress=False)
    with pytest.raises(ValueError, match="watches 'val/loss', and there are no validation data"):
        trainer.fit(make_task(lr_scheduler.ReduceLROnPlateau), samples())
    with pytest.raises(ValueError, match=r"watches 'val/typo'; the epoch's results are .*val/loss"):
        fit(Schedule(lr_scheduler.ReduceLROnPlateau, monitor="val/typo"))


def test_a_second_fit_begins_the_schedule_again() -> None:
    rates = Rates()
    trainer = treadle.Trainer(
        max_epochs=1, seed=0, run_dir=None, checkpoint=None, callbacks=[rates], progress=False
    )
    task = make_task(schedules.LinearDecay())
    trainer.fit(task, treadle.Loader(samples(), 4))
    trainer.fit(task, treadle.Loader(samples(), 4))
    assert rates.seen[:6] == rates.seen[6:]
