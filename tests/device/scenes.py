"""What is done on the stand-in device and on the CPU; a process of its own, whose accelerator it is."""

from __future__ import annotations

import functools
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from examples.gan import GAN
from tests.device import stand_in
from torch import nn
from torch.nn.functional import cross_entropy

import treadle
from treadle import callbacks, metrics, schedules

generator = torch.Generator().manual_seed(3)
X, Y = torch.randn(52, 4, generator=generator), torch.arange(52) % 3
CLASSES = torch.tensor([1.0, 5.0, 0.2])
EACH = treadle.Every(steps=1)
ADAM = functools.partial(torch.optim.AdamW, lr=0.01, foreach=False)  # one kernel at a time, on either device
SGD = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9, foreach=False)


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))


def classifier(**options: Any) -> treadle.SupervisedTask:
    counted = {"accuracy": metrics.Accuracy(), "f1": metrics.F1(num_classes=3)}
    arguments = {"loss": cross_entropy, "optimizer": ADAM, "metrics": counted} | options
    return treadle.SupervisedTask(network(), **arguments)


class InPlace(treadle.SupervisedTask):
    """Changes what it has logged."""

    def compute_loss(self, batch: Any, state: treadle.State) -> Any:
        loss = super().compute_loss(batch, state)
        state.log("plain", loss)
        loss += 1.0
        return loss


def gan() -> treadle.Task:
    torch.manual_seed(1)
    task = GAN()
    task.configure_optimizers = lambda: {  # type: ignore[method-assign]
        name: torch.optim.Adam(part.parameters(), 1e-3, foreach=False)
        for name, part in (("discriminator", task.discriminator), ("generator", task.generator))
    }
    return task


def closure() -> treadle.Task:
    torch.manual_seed(1)
    optimizer = functools.partial(torch.optim.LBFGS, lr=0.1, max_iter=3)
    return treadle.SupervisedClosureTask(nn.Linear(4, 3), cross_entropy, optimizer)


RUNS: dict[str, tuple[Callable[[], treadle.Task], dict[str, Any]]] = {
    "plain": (classifier, {}),
    "momentum": (lambda: classifier(optimizer=SGD), {}),
    "clipped": (classifier, {"clip_norm": 0.5, "clip_value": 0.05}),
    "accumulated": (classifier, {"accumulate": 3}),
    "split": (classifier, {"microbatch_size": 4, "clip_norm": 1.0}),
    "scheduled": (lambda: classifier(optimizer=SGD, scheduler=schedules.CosineDecay(warmup=3)), {}),
    "several losses": (
        lambda: classifier(
            loss={"ce": cross_entropy, "square": lambda o, t: (o**2).mean()}, loss_weights={"square": 0.1}
        ),
        {},
    ),
    "weighted classes": (lambda: classifier(loss=nn.CrossEntropyLoss(weight=CLASSES)), {"accumulate": 2}),
    "a weighted partial": (
        lambda: classifier(loss=functools.partial(cross_entropy, weight=CLASSES)),
        {"microbatch_size": 4},
    ),
    "changed in place": (lambda: InPlace(network(), cross_entropy, ADAM), {}),
    "averaged": (
        classifier,
        {"callbacks": [callbacks.ExponentialMovingAverage(0.9), callbacks.LearningRateMonitor()]},
    ),
    "watched": (
        classifier,
        {
            "callbacks": [
                callbacks.GradientStatistics(EACH, layers=True),
                callbacks.ActivationStatistics(every=EACH),
                callbacks.GradientDistribution(EACH),
                callbacks.NonFinitePolicy("skip"),
                callbacks.Fingerprints(2),
            ]
        },
    ),
    "frozen": (classifier, {"callbacks": [callbacks.Freezing(["model.0.*"], steps=5)]}),
    "generators": (gan, {}),
    "closure": (closure, {}),
    "tried first": (classifier, {"trial": True}),
}


STEPS = ("plain", "clipped", "accumulated", "split", "scheduled", "several losses", "averaged", "generators")
STEPS += ("weighted classes", "a weighted partial")
"""Those that must not wait for the device; the others look, or ask a closure for its loss."""


def data(name: str) -> tuple[Any, Any]:
    samples: Any = X[:, :2].contiguous() if name == "generators" else (X, Y)
    return treadle.Loader(samples, 7, shuffle=True), samples


def trained(name: str, device: str) -> dict[str, Any]:
    make, options = RUNS[name]
    task = make()
    settings = {
        "max_epochs": 3,
        "seed": 5,
        "run_dir": None,
        "progress": False,
        "device": device,
        "log_every": 4,
    }
    trainer = treadle.Trainer(**settings | options)
    train, val = data(name)
    run = trainer.fit(task, train, val=val)
    placed = {str(parameter.device.type) for parameter in task.parameters()}
    result: dict[str, Any] = {
        "weights": run.fields["weights_sha256"],
        "history": {key: values for key, values in run.history.items() if not key.startswith("time/")},
        "steps": {key: run.series(key).values.tolist() for key in run.names() if "time/" not in key},
        "placed": sorted(placed),
    }
    if name != "generators":
        result["evaluated"] = trainer.evaluate(task, treadle.Loader((X, Y), 8))
        result["predicted"] = trainer.predict(task, treadle.Loader((X, Y), 8)).tolist()
        found = trainer.results(task, treadle.Loader((X, Y), 8))
        assert found.outputs.device.type == found.predictions.device.type == "cpu"
        result["results"] = [found.outputs.tolist(), found.predictions.tolist(), found.targets.tolist()]
    return result


class Draw(treadle.Callback):
    """Draws from the device's generator."""

    def on_batch_start(self, state: treadle.State) -> None:
        stand_in.Generators.state += 1


def resumed(folder: Path, first: str, second: str) -> list[Any]:
    """Weights and device's generator of runs that were cut after some step, and went on on another device."""
    found = []
    train, val = data("averaged")
    for cut in (1, 4, 8, 11):
        options: dict[str, Any] = {
            "seed": 5,
            "run_dir": folder / f"{first}-{second}-{cut}",
            "progress": False,
            "callbacks": [callbacks.ExponentialMovingAverage(0.9), Draw()],
        }
        treadle.Trainer(max_steps=cut, device=first, **options).fit(classifier(), train, val=val)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*device")  # that it is another one
            run = treadle.Trainer(max_steps=16, device=second, **options).fit(
                classifier(), train, val=val, resume="last"
            )
        found.append([run.fields["weights_sha256"], stand_in.Generators.state.tolist()])
    return found


class Reads(treadle.Callback):
    """Counts what the host takes from the device within steps."""

    order = 1e6

    def __init__(self, reads: Callable[[], int]) -> None:
        self.reads, self.count = reads, 0

    def on_step_start(self, state: treadle.State) -> None:
        self.before = self.reads()

    def on_after_optimizer_step(self, state: treadle.State) -> None:
        self.count += self.reads() - self.before


def counted(reads: Callable[[], int]) -> dict[str, Any]:
    """What the host takes from the device: within steps, and in looks at few and at many batches."""
    result: dict[str, Any] = {}
    for name in STEPS:
        watch = Reads(reads)
        make, options = RUNS[name]
        own = options.get("callbacks", [])
        trainer = treadle.Trainer(
            max_epochs=2,
            run_dir=None,
            progress=False,
            log_every=10**6,
            **options | {"callbacks": [*own, watch]},
        )
        trainer.fit(make(), data(name)[0])
        result[name] = watch.count
    trainer = treadle.Trainer(run_dir=None, progress=False)  # the accelerator, by itself
    for what in ("evaluate", "predict"):
        for size in (26, 1):
            before = reads()
            getattr(trainer, what)(classifier(), treadle.Loader((X, Y), size))
            result[f"{what}, {52 // size} batches"] = reads() - before
    before = reads()
    float(torch.ones((), device=stand_in.NAME))
    result["a number"] = reads() - before
    return result


def automatic(folder: Path) -> dict[str, Any]:
    """What picks the device, or is made for it, by itself."""
    task = classifier()
    place = folder / "quick"
    run = treadle.fit(network(), (X, Y), loss=cross_entropy, epochs=1, run_dir=place, progress=False)
    loaded = treadle.load_model(place, network(), "last")
    trainer = treadle.Trainer(max_epochs=1, run_dir=None, progress=False)
    train = treadle.Loader((X, Y), 8)
    return {
        "device": str(trainer.device),
        "recorded": run.environment.get("device"),
        "loaded": sorted({str(p.device.type) for p in loaded.parameters()}),
        "batch size": treadle.find_batch_size(trainer, task, (X, Y), most=16),
        "rates": len(treadle.find_learning_rate(trainer, task, train, high=0.1, factor=3.0).rates),
    }


def main() -> None:
    library, folder = Path(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    reads = stand_in.register(library)
    warnings.simplefilter("error")
    places = ("cpu", stand_in.NAME)
    report = {
        "runs": {name: {place: trained(name, place) for place in places} for name in RUNS},
        "resumed": {f"{a} {b}": resumed(folder, a, b) for a in places for b in places},
        "reads": counted(reads),
        "automatic": automatic(folder),
    }
    (folder / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
