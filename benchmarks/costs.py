"""What everything around a step costs: extras, epochs, set-up, growth, evaluation, prediction.

The processor's time of the training thread, so that a busy machine changes little; each number is the
median of differences or ratios between two runs taken in turns A B A B.

    python benchmarks/costs.py [--pairs 9] [--threads 1] [--steps 100000]
"""

from __future__ import annotations

import argparse
import functools
import gc
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import treadle

BATCH, FEATURES, CLASSES = 32, 64, 10
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(512 * BATCH, FEATURES, generator=GENERATOR)
Y = torch.randint(CLASSES, (512 * BATCH,), generator=GENERATOR)


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(FEATURES, 64), nn.ReLU(), nn.Linear(64, CLASSES))


def fit(steps: int, batch: int = BATCH, samples: int | None = None, **options: Any) -> treadle.Run:
    task = treadle.SupervisedTask(
        mlp(), cross_entropy, torch.optim.SGD, lr=0.01, metrics=options.pop("metrics", None)
    )
    count = steps * batch if samples is None else samples
    settings = {
        "max_steps": steps,
        "max_epochs": None,
        "seed": 0,
        "device": "cpu",
        "run_dir": None,
        "progress": False,
    }
    settings |= {"checkpoint": None} | options
    return treadle.Trainer(**settings).fit(task, treadle.Loader((X[:count], Y[:count]), batch, shuffle=True))


class Idle(treadle.Callback):
    def __init__(self, number: int) -> None:
        self.number = number

    def on_step_end(self, state: treadle.State) -> None:
        pass


class Logging(treadle.Callback):
    """Twenty values a step, each another one: made in any case, logged where `logs` says so."""

    def __init__(self, make: Callable[[], Sequence[Any]], logs: bool) -> None:
        self.names = [f"value_{number}" for number in range(20)]
        self.make, self.logs = make, logs

    def on_step_end(self, state: treadle.State) -> None:
        values = self.make()
        if self.logs:
            for name, value in zip(self.names, values, strict=True):
                state.log(name, value)
        else:
            for _name, _value in zip(self.names, values, strict=True):
                pass


NUMBERS = torch.arange(20.0)
VALUES = {
    "number": lambda: [float(n) for n in range(20)],
    "tensor": lambda: NUMBERS.clone().unbind(),
}


def spent(function: Callable[[], object]) -> float:
    gc.collect()
    began = time.thread_time()
    function()
    return time.thread_time() - began


def difference(more: Callable[[], object], less: Callable[[], object], pairs: int) -> float:
    more(), less()
    return statistics.median(spent(more) - spent(less) for _ in range(pairs))


def extras(pairs: int) -> Iterator[tuple[str, str]]:
    steps = 400

    def per_step(items: int, **options: Any) -> str:
        seconds = difference(lambda: fit(steps, **options), lambda: fit(steps), pairs)
        return f"{seconds * 1e6 / steps / items:.2f} us a step each"

    yield "an idle callback (of 50)", per_step(50, callbacks=[Idle(number) for number in range(50)])
    for kind, make in VALUES.items():

        def logging(logs: bool, make: Any = make) -> Callable[[], object]:
            return lambda: fit(steps, callbacks=[Logging(make, logs)])

        seconds = difference(logging(True), logging(False), pairs)
        yield f"a {kind} logged (of 20)", f"{seconds * 1e6 / steps / 20:.2f} us a step each"
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "run"  # its set-up, the same for any number of steps, is left out
        longer = difference(lambda: fit(5 * steps, run_dir=place), lambda: fit(5 * steps), pairs)
        shorter = difference(lambda: fit(steps, run_dir=place), lambda: fit(steps), pairs)
        yield "the run's record", f"{(longer - shorter) * 1e6 / (4 * steps):.2f} us a step"


def fixed(pairs: int) -> Iterator[tuple[str, str]]:
    epochs = 100

    def short(many: bool) -> Callable[[], object]:
        samples = BATCH if many else epochs * BATCH
        return lambda: fit(epochs, samples=samples, metrics={"accuracy": treadle.metrics.Accuracy()})

    cost = difference(short(True), short(False), pairs)
    yield "an epoch of one step, over a step of a long epoch", f"{cost * 1e3 / epochs:.2f} ms"
    with tempfile.TemporaryDirectory() as folder:
        cost = statistics.median(spent(lambda: fit(1, run_dir=Path(folder) / "run")) for _ in range(pairs))
    yield "a whole fit of one step, with a record", f"{cost * 1e3:.1f} ms"


def looking(pairs: int) -> Iterator[tuple[str, str]]:
    """Against careful loops over views of the data that end with the same numbers and the same outputs.

    What a batch costs is the difference between many batches and few, so set-up counts for nobody; it is
    given by itself. Ours read a copy of each batch, so a model that changes its input leaves the data alone.
    """
    task = treadle.SupervisedTask(mlp(), cross_entropy, metrics={"accuracy": treadle.metrics.Accuracy()})
    trainer = treadle.Trainer(run_dir=None, progress=False, device="cpu")
    model = task.model.eval()

    def evaluated(batches: Iterable[tuple[torch.Tensor, torch.Tensor]], count: int) -> dict[str, float]:
        total, right = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.int64)
        with torch.inference_mode():
            for inputs, targets in batches:
                output = model(inputs)
                total.add_(cross_entropy(output, targets), alpha=len(targets))
                right += (output.argmax(1) == targets).count_nonzero()
        return {"test/loss": total.item() / count, "test/accuracy": right.item() / count}

    def bare_evaluation(size: int, count: int) -> dict[str, float]:
        return evaluated(zip(X[:count].split(size), Y[:count].split(size), strict=True), count)

    def loader_evaluation(size: int, count: int) -> dict[str, float]:
        return evaluated(DataLoader(TensorDataset(X[:count], Y[:count]), size), count)

    def loader_prediction(size: int, count: int) -> torch.Tensor:
        loader = DataLoader(TensorDataset(X[:count], Y[:count]), size)
        with torch.inference_mode():
            return torch.cat([model(inputs) for inputs, _ in loader])

    def bare_prediction(size: int, count: int) -> torch.Tensor:
        with torch.inference_mode():
            return torch.cat([model(inputs) for inputs in X[:count].split(size)])

    def stored_prediction(size: int, count: int) -> torch.Tensor:
        outputs = torch.empty(count, CLASSES)
        with torch.inference_mode():
            for start in range(0, count, size):
                outputs[start : start + size] = model(X[start : start + size])
        return outputs

    many, few = len(X), len(X) // 8
    for size in (256, 32):
        loaders = {count: treadle.Loader((X[:count], Y[:count]), size) for count in (many, few)}
        expected, found = bare_evaluation(size, many), trainer.evaluate(task, loaders[many])
        assert all(abs(found[name] - value) < 1e-12 for name, value in expected.items())
        assert torch.equal(trainer.predict(task, loaders[many]), bare_prediction(size, many))
        assert torch.equal(stored_prediction(size, many), bare_prediction(size, many))
        for what, ours, bare in (
            ("evaluate, over a bare loop", trainer.evaluate, bare_evaluation),
            ("predict, over a bare loop that joins a list", trainer.predict, bare_prediction),
            ("predict, over a bare loop that stores rows", trainer.predict, stored_prediction),
            ("evaluate, over a loop with a DataLoader", trainer.evaluate, loader_evaluation),
            ("predict, over a loop with a DataLoader", trainer.predict, loader_prediction),
        ):
            one = functools.partial(_look, ours, task, loaders)
            yield (
                f"{what}, batches of {size}",
                per_batch(one, functools.partial(bare, size), many, few, pairs),
            )
        bare = functools.partial(bare_evaluation, size)
        same = functools.partial(bare_evaluation, size)
        yield f"the bare evaluation, over itself, batches of {size}", per_batch(same, bare, many, few, pairs)


def _look(ours: Callable[..., object], task: Any, loaders: dict[int, Any], count: int) -> None:
    ours(task, loaders[count])


def per_batch(
    one: Callable[[int], object], other: Callable[[int], object], many: int, few: int, pairs: int
) -> str:
    """What a batch costs in `one` over what it costs in `other`, and what `one` costs once."""
    one(many), other(many)
    ratios, fixed = [], []
    for number in range(4 * pairs):
        order = (one, other) if number % 2 else (other, one)  # whoever comes second finds warm caches
        long = {turn: spent(lambda turn=turn: turn(many)) for turn in order}  # type: ignore[misc]
        short = {turn: spent(lambda turn=turn: turn(few)) for turn in order}  # type: ignore[misc]
        batches = {turn: long[turn] - short[turn] for turn in order}
        ratios.append(batches[one] / batches[other])
        fixed.append(short[one] - batches[one] * few / (many - few))
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.2f} x a batch ({low:.2f} to {high:.2f}), {statistics.median(fixed) * 1e3:.1f} ms once"


class Growth(treadle.Callback):
    """The processor's time of a step, and the memory, early and late."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.marks: list[tuple[float, int]] = []

    def on_step_end(self, state: treadle.State) -> None:
        if state.progress.step in (1000, 6000, self.steps - 5000, self.steps):
            self.marks.append((time.thread_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))


def growth(steps: int) -> Iterator[tuple[str, str]]:
    with tempfile.TemporaryDirectory() as folder:
        marks = Growth(steps)
        accuracy = {"accuracy": treadle.metrics.Accuracy()}
        samples = len(X)
        fit(steps, samples=samples, metrics=accuracy, callbacks=[marks], run_dir=Path(folder) / "run")
        (a, _), (b, early), (c, _), (d, late) = marks.marks
        yield f"a step near {steps:,} over one near 1,000", f"{(d - c) / (b - a):.2f} x"
        yield f"memory at {steps:,} over that at 6,000", f"{(late - early) / 1024:+.1f} MiB"
        marks = Growth(20_000)
        fit(20_000, samples=20 * BATCH, metrics=accuracy, callbacks=[marks], run_dir=Path(folder) / "short")
        (a, _), (b, early), (c, _), (d, late) = marks.marks
        yield "a step of epoch 1,000 over one of epoch 50 (20 steps each)", f"{(d - c) / (b - a):.2f} x"
        yield "memory after 1,000 epochs over that at 300", f"{(late - early) / 1024:+.1f} MiB"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=100_000)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, {arguments.threads} threads")
    for part in (extras(arguments.pairs), fixed(arguments.pairs), looking(arguments.pairs)):
        for what, cost in part:
            print(f"{what:60} {cost}", flush=True)
    for what, cost in growth(arguments.steps):
        print(f"{what:60} {cost}", flush=True)


if __name__ == "__main__":
    main()
