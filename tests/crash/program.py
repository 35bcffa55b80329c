"""A small training program with everything in it that a resume could lose, configured by one JSON object.

    python -m tests.crash.program '{"folder": "runs/one", "workers": 2, "dropout": 0.3}'

It goes on with the newest run of its folder, or begins one, and prints `weights_sha256` at its end.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset, IterableDataset

import treadle

FEATURES, CLASSES = 6, 3


@dataclass(frozen=True)
class Setting:
    """One cell of the matrix: what the program trains, and how."""

    name: str = "plain"
    samples: int = 30
    batch_size: int = 4  # the last batch of an epoch is short
    epochs: int = 4
    shuffle: bool = True
    workers: int = 0
    accumulate: int = 1
    microbatch_size: int | None = None
    norm: bool = True
    dropout: float = 0.0
    augment: bool = False
    precision: str = "fp32"
    scheduler: str = ""  # "step" or "epoch"
    averaging: bool = False
    stopping: bool = False
    stream: bool = False
    background: bool = True
    every_steps: int | None = 1  # None saves after epochs only
    keep_last: int | None = 2
    log_every: int = 50
    eval_steps: int | None = None
    on_error: str = "raise"


class Samples(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Distinguishable samples; augmentation draws from every generator there is."""

    def __init__(self, count: int, augment: bool) -> None:
        self.count, self.augment = count, augment

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        inputs = torch.sin(torch.arange(FEATURES) * (index + 1.0))
        if self.augment:
            inputs = (
                inputs + 0.1 * torch.rand(FEATURES) + 0.1 * float(np.random.rand()) + 0.1 * random.random()
            )
        return inputs, torch.tensor(index), torch.tensor(index % CLASSES)


class Stream(IterableDataset[tuple[Tensor, Tensor, Tensor]]):
    """Samples one after another, which can say where they are and go on from there."""

    def __init__(self, samples: Samples) -> None:
        self.samples, self.position = samples, 0

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        while self.position < len(self.samples):
            self.position += 1
            yield self.samples[self.position - 1]
        self.position = 0


class IndexedTask(treadle.SupervisedTask):
    def prepare_batch(self, batch: Any) -> tuple[Any, Any]:
        inputs, _, targets = batch
        return inputs, targets


class Order(treadle.Callback):
    """Records which samples a step held, in which order and with which noise, as series of the run."""

    def on_batch_start(self, state: treadle.State) -> None:
        inputs, indices, _ = state.batch
        places = torch.arange(1, len(indices) + 1)
        state.log("order", float(((indices + 1) ** 3 * places).sum()))  # a sum that another order changes
        state.log("noise", float(inputs.double().sum()))
        state.log("sample", float(((indices + 1) ** 3).double().mean()))

    def on_epoch_end(self, state: treadle.State) -> None:
        state.record("epoch/number", float(state.progress.epoch))


def make_task(setting: Setting) -> treadle.Task:
    torch.manual_seed(7)
    model = nn.Sequential(
        nn.Linear(FEATURES, 16),
        nn.BatchNorm1d(16) if setting.norm else nn.Identity(),
        nn.ReLU(),
        nn.Dropout(setting.dropout),
        nn.Linear(16, CLASSES),
    )
    schedule = treadle.Schedule(
        partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.95), every=setting.scheduler or "step"
    )
    return IndexedTask(
        model,
        cross_entropy,
        torch.optim.Adam,
        lr=0.02,
        scheduler=schedule if setting.scheduler else None,
        metrics={"accuracy": treadle.metrics.Accuracy()},
    )


def make_trainer(setting: Setting, folder: Path | str, **options: Any) -> treadle.Trainer:
    callbacks: list[treadle.Callback] = [Order()]
    callbacks += [treadle.callbacks.ExponentialMovingAverage(0.9)] if setting.averaging else []
    callbacks += [treadle.callbacks.EarlyStopping("train/loss", patience=2, min_delta=0.2)] * setting.stopping
    steps = setting.every_steps
    return treadle.Trainer(
        max_epochs=setting.epochs,
        seed=11,
        accumulate=setting.accumulate,
        microbatch_size=setting.microbatch_size,
        precision=setting.precision,
        run_dir=folder,
        callbacks=[*callbacks, *options.pop("callbacks", [])],
        checkpoint=treadle.Checkpoints(
            every=treadle.Every(epochs=1) if steps is None else treadle.Every(steps=steps, epochs=1),
            keep_last=setting.keep_last,
            background=setting.background,
            **({} if setting.on_error == "raise" else {"on_error": setting.on_error}),
        ),
        log_every=setting.log_every,
        eval_every=treadle.Every(steps=setting.eval_steps, epochs=1),
        progress=False,
        **options,
    )


def train(setting: Setting, folder: Path | str, resume: Any = "last", **options: Any) -> treadle.Run:
    """Train to the end from wherever the newest run of the folder stands."""
    samples = Samples(setting.samples, setting.augment)
    data = Stream(samples) if setting.stream else samples
    loader = treadle.Loader(
        data,
        setting.batch_size,
        shuffle=setting.shuffle and not setting.stream,
        workers=setting.workers,
    )
    validation = treadle.Loader(Samples(9, setting.augment), 5)
    return make_trainer(setting, folder, **options).fit(make_task(setting), loader, validation, resume=resume)


def main(arguments: Mapping[str, Any]) -> None:
    torch.set_num_threads(1)
    options = dict(arguments)
    folder = options.pop("folder")
    run = train(replace(Setting(), **options), folder)
    print(run.weights_sha256, flush=True)


def record_of(path: Path | str) -> dict[str, Any]:
    """All that a run says of its training, bit for bit: fingerprint, series, history, sample order."""
    run = treadle.Run.open(path)
    series = {
        name: (run.series(name).steps.tolist(), run.series(name).values.tobytes().hex())
        for name in sorted(run.names())
    }
    measured = sorted(name for name in run.history if not name.startswith("time/"))
    history = {name: np.array(run.history[name]).tobytes().hex() for name in measured}
    return {
        "status": run.status,
        "weights": run.weights_sha256,
        "step": run.step,
        "epoch": run.epoch,
        "series": series,
        "history": history,
    }


def differences(whole: Mapping[str, Any], resumed: Mapping[str, Any]) -> list[str]:
    """The names of what two records disagree on."""
    found = [name for name in whole if name not in ("series", "history") and whole[name] != resumed[name]]
    for part in ("series", "history"):
        names = whole[part].keys() | resumed[part].keys()
        found += sorted(f"{part}: {n}" for n in names if whole[part].get(n) != resumed[part].get(n))
    return found


SETTINGS: dict[str, Setting] = {
    setting.name: setting
    for setting in (
        Setting("plain", shuffle=False, background=False),
        Setting("shuffled", dropout=0.3, scheduler="step"),
        Setting("workers", workers=2, augment=True, dropout=0.2),
        Setting("accumulation", accumulate=3, samples=62, dropout=0.3, augment=True, scheduler="epoch"),
        Setting("bf16", precision="bf16", dropout=0.3, averaging=True),
        Setting("fp16", precision="fp16", accumulate=2, samples=60, keep_last=None),
        Setting("average", averaging=True, augment=True, scheduler="step", every_steps=2, background=False),
        Setting("stopping", stopping=True, epochs=40, scheduler="epoch", dropout=0.1, every_steps=3),
        Setting("stream", stream=True, augment=True, dropout=0.3, eval_steps=3),
        Setting("stream windows", stream=True, accumulate=2, samples=58, averaging=True, background=False),
        Setting("epochs only", every_steps=None, samples=18, epochs=10, dropout=0.3, augment=True),
        Setting("everything", workers=2, accumulate=2, samples=58, dropout=0.3, augment=True, eval_steps=5,
                precision="bf16", scheduler="step", averaging=True, stopping=True, log_every=2),
        Setting("microbatches", microbatch_size=3, samples=40, batch_size=8, dropout=0.2, eval_steps=4),
    )
}  # fmt: skip


def as_json(setting: Setting) -> str:
    return json.dumps(asdict(setting))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
