"""What torchrun starts: `scenes.py SCENE FOLDER`; each rank leaves a JSON file of what it saw."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import treadle

torch.set_num_threads(1)

RANK, WORLD = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
STRATEGIES = ("all_reduce", "ddp", "fsdp2")


def samples(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 6, generator=generator), torch.arange(count) % 3


def vector(state: dict[str, Tensor]) -> list[float]:
    return torch.cat([value.detach().flatten().double() for value in state.values()]).tolist()


def whole(task: treadle.Task, trainer: treadle.Trainer) -> list[float]:
    return vector(trainer.strategy.model_state(task))


def squares(output: Tensor, target: Tensor) -> Tensor:
    return output.square().mean()


def make_task(seed: int = 3) -> treadle.Task:
    torch.manual_seed(seed + RANK)  # rank 0's parameters count
    return treadle.SupervisedTask(
        nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3)),
        {"cross": cross_entropy, "square": squares},
        torch.optim.AdamW,
        lr=0.05,
        loss_weights={"square": 0.3},
        metrics={"accuracy": treadle.metrics.Accuracy()},
    )


class Order(treadle.Callback):
    def __init__(self) -> None:
        self.seen: list[list[Any]] = []

    def on_batch_start(self, state: treadle.State) -> None:
        self.seen.append([state.current_step, state.batch[0][:, 0].tolist()])


def history_of(run: treadle.Run) -> dict[str, list[float]]:
    return {name: list(run.history[name]) for name in run.history if not name.startswith("time/")}


def agree(strategy: str) -> dict[str, Any]:
    """Twenty steps over ragged batches, with accumulation, clipping and two losses."""
    task, order = make_task(), Order()
    trainer = treadle.Trainer(
        max_steps=20, accumulate=2, clip_norm=0.5, seed=4, run_dir=None, progress=False, strategy=strategy
    )
    run = trainer.fit(task, treadle.Loader(samples(25), 4, shuffle=True), samples(11), callbacks=[order])
    result = {
        "weights": whole(task, trainer),
        "history": history_of(run),
        "losses": run.series("train/loss").values.tolist(),
        "steps": run.series("train/loss").steps.tolist(),
        "order": order.seen,
        "predictions": trainer.predict(task, samples(7)).tolist(),
    }
    given = DataLoader(TensorDataset(*samples(10)), batch_size=4)  # three batches, dealt to two or three
    result["given"] = [trainer.evaluate(task, given), trainer.predict(task, given).tolist()]
    return result


class Tokens(treadle.SupervisedTask):
    def num_items(self, batch: Any) -> Tensor:
        return (batch[1] >= 0).sum()


def tokens() -> dict[str, Any]:
    """A loss over tokens, some shares of which are all padding; small micro-batches."""
    inputs, targets = samples(20)
    targets[::3] = -1
    targets[4:8] = -1
    torch.manual_seed(3)
    task = Tokens(nn.Linear(6, 3), partial(cross_entropy, ignore_index=-1), torch.optim.SGD, lr=0.3)
    trainer = treadle.Trainer(
        max_epochs=3, accumulate=3, seed=4, microbatch_size=1, run_dir=None, progress=False
    )
    run = trainer.fit(task, treadle.Loader((inputs, targets), 4))
    return {"weights": whole(task, trainer), "losses": run.series("train/loss").values.tolist()}


class Adversaries(treadle.Task):
    """Two optimizers, three forward passes, parameters of the task itself and some that are never used."""

    def __init__(self) -> None:
        super().__init__()
        self.maker, self.judge = nn.Linear(6, 6), nn.Linear(6, 1)
        self.unused = nn.Linear(3, 3)
        self.scale = nn.Parameter(torch.ones(()))

    def configure_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        rest = [*self.maker.parameters(), *self.unused.parameters(), self.scale]
        return {
            "judge": torch.optim.AdamW(self.judge.parameters(), 0.05),
            "maker": torch.optim.AdamW(rest, 0.05, weight_decay=0.1),
        }

    def judge_loss(self, real: Tensor) -> Tensor:
        right, wrong = self.judge(real), self.judge(self.maker(real).detach() * self.scale)
        return binary_cross_entropy_with_logits(right, torch.ones_like(right)) + (
            binary_cross_entropy_with_logits(wrong, torch.zeros_like(wrong))
        )

    def maker_loss(self, real: Tensor) -> Tensor:
        wrong = self.judge(self.maker(real) * self.scale)
        return binary_cross_entropy_with_logits(wrong, torch.ones_like(wrong))

    def train_step(self, window: Any, state: treadle.State) -> None:
        for name, loss_of in (("judge", self.judge_loss), ("maker", self.maker_loss)):
            for batch, share in state.engine.microbatches(window, self.items(window)):
                loss = loss_of(batch[0])
                state.engine.backward(loss, share)
                state.log(name, loss)
            state.engine.step(self.optimizers[name])


def adversaries() -> dict[str, Any]:
    torch.manual_seed(3)
    task = Adversaries()
    trainer = treadle.Trainer(max_epochs=4, seed=4, run_dir=None, progress=False)
    run = trainer.fit(task, treadle.Loader(samples(13), 4, shuffle=True))
    return {"weights": whole(task, trainer), "losses": run.series("train/judge").values.tolist()}


class Momentum(treadle.SupervisedTask):
    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(0.85)


def kept_gradients() -> dict[str, Any]:
    """Momentum by what a task keeps of its gradients; batch normalisation with a rank without samples."""
    torch.manual_seed(3)
    task = Momentum(nn.Linear(6, 3), cross_entropy, torch.optim.SGD, lr=0.05)
    trainer = treadle.Trainer(max_steps=9, seed=4, run_dir=None, progress=False)
    trainer.fit(task, treadle.Loader(samples(9), 4, shuffle=True))
    return {"weights": whole(task, trainer)}


def evaluations() -> dict[str, Any]:
    """Every sample once, whatever the size of the data; with sums, and with states that are merged."""
    import warnings

    from torchmetrics.regression import SpearmanCorrCoef

    warnings.simplefilter("ignore")  # it says that it keeps all it has seen
    results: dict[str, Any] = {}
    task = make_task()
    task.metrics["spread"] = treadle.metrics.as_metric(Scores(SpearmanCorrCoef()))
    trainer = treadle.Trainer(max_steps=1, seed=4, run_dir=None, progress=False)
    for batch_size in (1, 3):
        for count in range(1, 4 * batch_size * 3 + 1):
            loader = treadle.Loader(samples(count), batch_size)
            results[f"{batch_size}/{count}"] = [
                trainer.evaluate(task, loader),
                trainer.predict(task, loader).tolist(),
            ]
    given = DataLoader(TensorDataset(*samples(10)), batch_size=4)
    full = trainer.results(task, given)
    results["given"] = [full.values, full.predictions.tolist(), full.targets.tolist()]
    results["sample"] = trainer.predict_sample(task, samples(1)[0][0]).tolist()
    return results


class Scores(treadle.metrics.Metric):
    """A metric of another library that is joined by its own states."""

    additive = False

    def __init__(self, metric: Any) -> None:
        super().__init__()
        self.inner = treadle.metrics.as_metric(metric)
        for name in ("compute", "reset", "to", "state_dict", "load_state_dict", "merge"):
            setattr(self, name, getattr(self.inner, name))

    def update(self, output: Any, target: Any) -> None:
        self.inner.update(output[:, 0], target.float())


class Endless(IterableDataset[Any]):
    """Samples that nobody has counted."""

    def __init__(self, rows: list[int]) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[Any]:
        inputs, targets = samples(400)
        return iter([(inputs[row], targets[row]) for row in self.rows])


def uneven(strategy: str = "all_reduce", streamed: bool = False, alone: bool = False) -> dict[str, Any]:
    """DataLoaders of the ranks' own, with 7, 5 and no batches; streams, too. `alone`: all on one process."""
    own = [[100 * rank + row for row in range(2 * count)] for rank, count in enumerate((7, 5, 0))]
    if alone:  # the batches of a step, one after the other
        steps = [[row for rows in own for row in rows[start : start + 2]] for start in range(0, 14, 2)]
        train: Any = [tuple(column[rows] for column in samples(400)) for rows in steps]
        train = treadle.Source(train)
    elif streamed:
        train = DataLoader(Endless(own[RANK]), batch_size=2)
    else:
        table = TensorDataset(*(column[own[RANK]] for column in samples(400)))
        train = DataLoader(table, batch_size=2) if own[RANK] else treadle.Source([])
    task = make_task()
    trainer = treadle.Trainer(max_epochs=2, seed=4, run_dir=None, progress=False, strategy=strategy)
    run = trainer.fit(task, train)
    return {
        "weights": whole(task, trainer),
        "step": run.step,
        "losses": run.series("train/loss").values.tolist(),
        "history": history_of(run),
    }


SAME = (tokens, adversaries, kept_gradients, evaluations)


def same() -> dict[str, Any]:
    """Everything that must come out as on one process, in one launch."""
    strategies = STRATEGIES if WORLD > 1 else ("auto",)
    results: dict[str, Any] = {f"agree/{name}": agree(name) for name in strategies}
    results.update((scene.__name__, scene()) for scene in SAME)
    if WORLD == 3:
        for name in STRATEGIES:
            results[f"uneven/{name}/table"] = uneven(name)
            results[f"uneven/{name}/stream"] = uneven(name, streamed=True)
    if WORLD == 1:
        results["uneven"] = uneven("single", alone=True)
    return results


# -- runs on disk -------------------------------------------------------------------------------------------


class Dropped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = self.layers(inputs)
        return output


class Trouble(treadle.Callback):
    """Something happens on one rank after a step."""

    def __init__(self, kind: str, rank: int, step: int) -> None:
        self.kind, self.rank, self.step = kind, rank, step

    def on_step_end(self, state: treadle.State) -> None:
        if state.progress.step != self.step or state.engine.strategy.rank != self.rank:
            return
        if self.kind:
            print(f"trouble at {time.time()}", flush=True)
        if self.kind == "SIGTERM":
            os.kill(os.getpid(), signal.SIGTERM)
        elif self.kind == "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.kind == "error":
            raise ArithmeticError("the very first cause")


def train(
    folder: str, model: str = "dropped", kind: str = "", rank: int = 0, step: int = 0, **options: Any
) -> dict[str, Any]:
    torch.manual_seed(7)
    module = Dropped() if model == "dropped" else nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
    task = treadle.SupervisedTask(
        module,
        cross_entropy,
        partial(torch.optim.SGD, momentum=0.9),
        lr=0.1,
        metrics={"accuracy": treadle.metrics.Accuracy()},
    )
    order = Order()
    trainer = treadle.Trainer(
        max_epochs=3,
        seed=11,
        run_dir=folder,
        callbacks=[order, Trouble(kind, rank, step)],
        checkpoint=treadle.Checkpoints(every=treadle.Every(steps=1), keep_last=None),
        progress=False,
        **options,
    )
    began = time.monotonic()
    run = trainer.fit(task, treadle.Loader(samples(44), 8, shuffle=True), samples(10), resume="last")
    return {
        "weights": whole(task, trainer),
        "sha": run.weights_sha256,
        "history": history_of(run),
        "order": order.seen,
        "status": run.status,
        "seconds": time.monotonic() - began,
    }


def printed() -> int:
    """How many characters a fit, an evaluation and a prediction print."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        task, trainer = make_task(), treadle.Trainer(max_epochs=1, run_dir=None)
        trainer.fit(task, samples(8), samples(8))
        trainer.evaluate(task, samples(8))
        trainer.predict(task, samples(8))
    return len(text.getvalue())


def shown(folder: str) -> int:
    """Train with a report, loggers and a picture of the results; how many pictures there are."""
    loggers: list[treadle.Callback] = [treadle.loggers.CSVLogger(), treadle.loggers.JSONLinesLogger()]
    picture = treadle.callbacks.ResultPicture(lambda results: torch.ones(1, len(results.targets)))
    trainer = treadle.Trainer(
        max_epochs=2, seed=0, run_dir=f"{folder}/shown", progress=False, callbacks=[*loggers, picture]
    )
    return len(trainer.fit(make_task(), samples(8), samples(11)).media("picture"))


def written(folder: Path) -> list[Any]:
    """Predictions of every sample by its own number: in memory, in a file, collected."""
    trainer, task = treadle.Trainer(run_dir=None, progress=False), make_task()
    task.model = torch.nn.Flatten()
    numbers = torch.arange(101.0).unsqueeze(1)
    given = treadle.Loader((numbers, numbers), 2)  # the last batch of one sample is empty on one process
    task.loss = torch.nn.functional.mse_loss
    predicted = [trainer.predict(task, given, out=out).tolist() for out in (None, folder / "predictions.npy")]
    few = treadle.Loader((numbers[:31], numbers[:31]), 2)  # sixteen batches here, fifteen there
    return [*predicted, trainer.results(task, few).outputs.tolist()]


def runs(folder: str) -> dict[str, Any]:
    """A whole run, and the same after a stop in the middle of an epoch, of each strategy."""
    results: dict[str, Any] = {"whole": train(f"{folder}/whole"), "printed": printed()}
    results["shown"] = shown(folder)
    results["written"] = written(Path(folder).parent)
    for name in ("all_reduce", "ddp", "fsdp2"):
        results[f"plain/{name}"] = train(f"{folder}/{name}", "plain", strategy=name)
    for name in ("cut", "grown"):
        try:
            train(f"{folder}/{name}", "dropped" if name == "cut" else "plain", "SIGTERM", WORLD - 1, 8)
        except treadle.Interrupted as interrupted:
            results[f"{name}/stopped"] = [interrupted.code, interrupted.run.step, interrupted.run.reason]
    results["cut"] = train(f"{folder}/cut")
    return results


def main(scene: str, folder: str) -> None:
    results: dict[str, Any] = {}
    if scene == "same":
        results = same()
        if WORLD == 2:
            results |= runs(f"{folder}/runs")
        if WORLD == 3:
            results["grown"] = train(f"{folder}/runs/grown-3", "plain")
    else:
        train(f"{folder}/{scene}", "dropped", scene, 1, 8)
    Path(folder, f"{scene}-{WORLD}-{RANK}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
