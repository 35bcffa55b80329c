"""An interrupted run ends bit for bit like an uninterrupted one, wherever it was cut."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, TensorDataset

import treadle
from treadle.checkpoint import read, weights_sha256

SAMPLES, FEATURES = 27, 6  # at batch 4: seven batches, the last of three samples; windows of 3, 3 and 1


class Augmented(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Distinguishable samples with random noise from every generator an augmentation may use."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        noise = torch.rand(FEATURES) + float(np.random.rand())
        return (
            torch.full((FEATURES,), float(index)) / SAMPLES + 0.1 * noise,
            torch.tensor(index),
            torch.tensor(index % 3),
        )


class Order(treadle.Callback):
    """Remembers which samples each micro-batch held, and their augmented values."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, list[int], float]] = []

    def on_batch_start(self, state: treadle.State) -> None:
        inputs, indices, _ = state.batch
        self.seen.append((state.progress.step + 1, indices.tolist(), float(inputs.sum())))


class IndexedTask(treadle.SupervisedTask):
    def prepare_batch(self, batch: Any) -> tuple[Any, Any]:
        inputs, _, targets = batch
        return inputs, targets


def make_task() -> treadle.Task:
    torch.manual_seed(7)
    model = nn.Sequential(
        nn.Linear(FEATURES, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3)
    )
    return IndexedTask(
        model,
        cross_entropy,
        partial(torch.optim.SGD, momentum=0.9),
        lr=0.1,
        scheduler=treadle.Schedule(partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.9), every="step"),
        metrics={"accuracy": treadle.metrics.Accuracy()},
    )


def fit(
    folder: Path, workers: int, resume: Any = None, **options: Any
) -> tuple[treadle.Run, treadle.Task, Order]:
    task, order = make_task(), Order()
    trainer = treadle.Trainer(
        max_epochs=3,
        seed=11,
        accumulate=3,
        run_dir=folder,
        callbacks=[order],
        checkpoint=treadle.Checkpoints(every=treadle.Every(steps=1), keep_last=None),
        progress=False,
        **options,
    )
    train = treadle.Loader(Augmented(), batch_size=4, shuffle=True, workers=workers)
    run = trainer.fit(task, train, treadle.Loader(Augmented(), batch_size=10), resume=resume)
    return run, task, order


def record_of(run: treadle.Run) -> dict[str, Any]:
    """All that was measured, times left out."""
    series = {
        name: (run.series(name).steps.tolist(), run.series(name).values.tolist()) for name in run.names()
    }
    names = [name for name in run.history if not name.startswith("time/")]
    return {"series": series, "history": {name: list(run.history[name]) for name in names}}


def training_state(run: treadle.Run) -> dict[str, Any]:
    assert run.path is not None
    return read(sorted((run.path / "checkpoints").glob("step-*"))[-1])


def assert_same(one: Any, other: Any, path: str = "") -> None:
    if isinstance(one, Tensor):
        assert torch.equal(one, other), path
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_same(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), path
        for position, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_same(left, right, f"{path}[{position}]")
    else:
        assert one == other or (one != one and other != other), path


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_at_every_step(tmp_path: Path, workers: int) -> None:
    whole, task, order = fit(tmp_path / "whole", workers)
    assert whole.step == 9
    assert order.seen[6][1] != sorted(order.seen[6][1])  # shuffled, and other noise in every epoch
    assert whole.path is not None
    for cut in range(1, 10):
        copy = tmp_path / f"cut-{cut}"
        shutil.copytree(whole.path, copy)
        for checkpoint in (copy / "checkpoints").glob("step-*"):
            if int(checkpoint.name.removeprefix("step-")) > cut:
                shutil.rmtree(checkpoint)
        # The samples' values are summed above, so workers' noise is compared too.
        run, resumed, rest = fit(copy, workers if cut % 4 == 1 else 0, resume=copy)
        assert run.weights_sha256 == whole.weights_sha256, cut
        assert rest.seen == [seen for seen in order.seen if seen[0] > cut]
        assert record_of(run) == record_of(whole)
        assert_same(training_state(run), training_state(whole))
        for name, value in task.state_dict().items():
            assert torch.equal(value, resumed.state_dict()[name])


def test_a_resumed_run_can_be_resumed_again_and_again(tmp_path: Path) -> None:
    whole, _, _ = fit(tmp_path / "whole", 0)

    class Leave(treadle.Callback):
        order = 2000.0

        def on_step_end(self, state: treadle.State) -> None:
            raise RuntimeError("killed")

    folder = tmp_path / "chain"
    for attempt in range(1, 10):
        task = make_task()
        trainer = treadle.Trainer(
            max_epochs=3,
            seed=11,
            accumulate=3,
            run_dir=folder,
            callbacks=[Leave()],
            checkpoint=treadle.Checkpoints(every=treadle.Every(steps=1), keep_last=2),
            progress=False,
        )
        with pytest.raises(RuntimeError, match="killed"):
            trainer.fit(
                task,
                treadle.Loader(Augmented(), 4, shuffle=True),
                treadle.Loader(Augmented(), 10),
                resume="last",
            )
        assert treadle.Run.open(folder).status == "failed"
        assert training_state(treadle.Run.open(folder))["progress"]["step"] == attempt
    run, _, _ = fit(folder, 0, resume="last")
    assert run.weights_sha256 == whole.weights_sha256
    assert record_of(run) == record_of(whole)
    assert [event.kind for event in run.events].count("resumed") == 9


def test_looking_at_a_run_does_not_change_it(tmp_path: Path) -> None:
    """Evaluating, logging and saving at every step: the same weights as with none of it."""
    watched, _, order = fit(tmp_path / "watched", 0, eval_every=treadle.Every(steps=1), log_every=1)
    task, bare = make_task(), Order()
    trainer = treadle.Trainer(
        max_epochs=3, seed=11, accumulate=3, run_dir=None, checkpoint=None, callbacks=[bare], progress=False
    )
    unwatched = trainer.fit(task, treadle.Loader(Augmented(), 4, shuffle=True))
    assert unwatched.weights_sha256 == watched.weights_sha256 == weights_sha256(task.state_dict())
    assert bare.seen == order.seen


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("own_generator", [True, False])
def test_resume_with_a_plain_dataloader(tmp_path: Path, workers: int, own_generator: bool) -> None:
    """Its own generator or the global one, in the middle of an epoch."""

    def loader() -> DataLoader[Any]:
        generator = torch.Generator().manual_seed(3) if own_generator else None
        return DataLoader(Augmented(), 4, shuffle=True, num_workers=workers, generator=generator)

    def run_to(folder: Path, resume: Any = None) -> tuple[treadle.Run, Order]:
        order = Order()
        trainer = treadle.Trainer(
            max_epochs=2,
            seed=5,
            run_dir=folder,
            callbacks=[order],
            checkpoint=treadle.Checkpoints(every=treadle.Every(steps=1), keep_last=None),
            progress=False,
        )
        return trainer.fit(make_task(), loader(), resume=resume), order

    whole, order = run_to(tmp_path / "whole")
    assert whole.path is not None
    for cut in (3, 7, 10):
        run, rest = run_to(tmp_path / f"cut-{cut}", resume=whole.path / "checkpoints" / f"step-{cut:08d}")
        assert run.weights_sha256 == whole.weights_sha256
        assert rest.seen == [seen for seen in order.seen if seen[0] > cut]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_resume_in_reduced_precision(tmp_path: Path, precision: str) -> None:
    whole, _, _ = fit(tmp_path / "whole", 0, precision=precision)
    assert whole.path is not None
    cut, _, _ = fit(
        tmp_path / "cut", 0, resume=whole.path / "checkpoints" / "step-00000004", precision=precision
    )
    assert cut.weights_sha256 == whole.weights_sha256
    assert_same(training_state(cut)["precision"], training_state(whole)["precision"])


class Stream(torch.utils.data.IterableDataset[tuple[Tensor, Tensor]]):
    """An endless-looking stream without a length, which can say where it is."""

    def __init__(self, stateful: bool, samples: int) -> None:
        self.position, self.stateful, self.samples = 0, stateful, samples
        if stateful:
            self.state_dict = lambda: {"position": self.position}
            self.load_state_dict = lambda state: setattr(self, "position", state["position"])

    def __iter__(self) -> Any:
        while self.position < self.samples:
            self.position += 1
            yield torch.full((FEATURES,), self.position / 22), torch.tensor(self.position % 3)
        self.position = 0


class Restarting(Stream):
    def __iter__(self) -> Any:
        self.position = 0
        yield from super().__iter__()


@pytest.mark.parametrize("samples", [22, 20])
@pytest.mark.parametrize("dataset", [partial(Stream, True), partial(Restarting, False)])
def test_resume_in_a_stream(tmp_path: Path, dataset: Any, samples: int) -> None:
    """A step's window may find the end of the stream after the last batch, which is a whole one with 20."""

    def run_to(folder: Path, resume: Any = None) -> treadle.Run:
        torch.manual_seed(2)
        task = treadle.SupervisedTask(nn.Linear(FEATURES, 3), cross_entropy, torch.optim.Adam, lr=0.05)
        trainer = treadle.Trainer(
            max_epochs=2,
            seed=5,
            accumulate=2,
            run_dir=folder,
            checkpoint=treadle.Checkpoints(every=treadle.Every(steps=1), keep_last=None),
            progress=False,
        )
        return trainer.fit(task, treadle.Loader(dataset(samples), batch_size=4), resume=resume)

    whole = run_to(tmp_path / "whole")
    assert whole.step == 6
    assert whole.path is not None
    for cut in range(1, 7):
        run = run_to(tmp_path / f"cut-{cut}", resume=whole.path / "checkpoints" / f"step-{cut:08d}")
        assert run.weights_sha256 == whole.weights_sha256, cut


def test_resuming_with_a_longer_horizon_goes_on_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    data = TensorDataset(torch.randn(20, FEATURES), torch.arange(20) % 3)

    def run_to(folder: Path, steps: int, resume: Any = None) -> treadle.Run:
        torch.manual_seed(2)
        task = treadle.SupervisedTask(nn.Linear(FEATURES, 3), cross_entropy, torch.optim.SGD, lr=0.05)
        trainer = treadle.Trainer(max_steps=steps, seed=5, run_dir=folder, progress=False)
        return trainer.fit(task, treadle.Loader(data, 4, shuffle=True), data, resume=resume)

    whole = run_to(tmp_path / "whole", 12)
    part = run_to(tmp_path / "part", 7)
    assert part.reason == "max_steps=7 reached"
    assert part.history["val/loss"][-1] > 0  # the open epoch is evaluated all the same
    longer = run_to(tmp_path / "part", 12, resume="last")
    assert longer.weights_sha256 == whole.weights_sha256
    assert record_of(longer) == record_of(whole)
