"""What torchrun starts to see tensor parallelism at work: `tensors.py FOLDER [WRONG]`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from tests.distributed.launching import FULL
from tests.distributed.scenes import history_of, samples, whole
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel
from torch.nn.functional import cross_entropy

import treadle

RANK, WORLD = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
STEPS, STOP = 20, 9


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(7)
        self.up, self.down = nn.Linear(7, 10), nn.Linear(10, 7)

    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = inputs + self.down(torch.tanh(self.up(self.norm(inputs))))
        return output


class Network(nn.Module):
    """Blocks that two processes share, and layers of which each has all."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 7)
        self.blocks = nn.Sequential(Block(), Block())
        self.leave = nn.Linear(7, 3)
        self.register_buffer("scale", torch.tensor([1.0, 0.5, 2.0]))

    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = self.leave(self.blocks(self.enter(inputs))) * self.scale
        return output


class Right(treadle.metrics.Metric):
    """How many were right: a sum, not a mean, so that who is counted twice is seen."""

    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.accumulate("total", torch.zeros(()))

    def update(self, output: Tensor, target: Tensor) -> None:
        self.total += (output.argmax(1) == target).sum()

    def compute(self) -> Tensor:
        return self.total


def plan() -> dict[str, ParallelStyle]:
    return {"model.blocks.*.up": ColwiseParallel(), "model.blocks.*.down": RowwiseParallel()}


class Tokens(treadle.SupervisedTask):
    """Items that only the device has counted."""

    def num_items(self, batch: Any) -> Tensor:
        return (batch[1] >= 0).sum()


def train(strategy: Any, folder: str | None = None, steps: int = STEPS, seed: int = 7, **options: Any) -> Any:
    torch.manual_seed(seed + RANK)  # rank 0's parameters count
    task = Tokens(Network(), cross_entropy, torch.optim.AdamW, lr=0.03, metrics={"right": Right()})
    trainer = treadle.Trainer(
        max_steps=steps,
        accumulate=2,
        clip_norm=0.5,
        seed=11,
        run_dir=folder,
        progress=False,
        strategy=strategy,
        **options,
    )
    data = treadle.Loader(samples(25), 4, shuffle=True)
    run = trainer.fit(task, data, samples(11), resume="last" if folder else None)
    return trainer, task, run


def result(trainer: treadle.Trainer, task: Any, run: treadle.Run) -> dict[str, Any]:
    up = task.model.blocks[0].up.weight
    return {
        "weights": whole(task, trainer),
        "history": history_of(run),
        "losses": run.series("train/loss").values.tolist(),
        "evaluated": trainer.evaluate(task, treadle.Loader(samples(13), 4)),
        "predicted": trainer.predict(task, treadle.Loader(samples(13), 4)).tolist(),
        "elements": up.to_local().numel() if isinstance(up, DTensor) else up.numel(),
    }


def main(folder: str, wrong: str = "") -> None:
    if wrong == "name":
        train(treadle.TensorParallel({"model.layers.*": ColwiseParallel()}, 2), f"{folder}/{wrong}")
    if wrong == "shape":
        train(treadle.TensorParallel({"model.enter": ColwiseParallel()}, 2), f"{folder}/{wrong}")
    if wrong == "copies":
        train(treadle.FSDP2(shard_size=3), f"{folder}/{wrong}")
    if wrong == "size":
        train(treadle.TensorParallel(plan(), 3), f"{folder}/{wrong}")
    results = {"plain": result(*train(treadle.TensorParallel(plan(), 2)))}
    if FULL:
        results["blocks"] = result(*train(treadle.TensorParallel(plan(), 2, wrap=[Block], recompute=True)))
    train(treadle.TensorParallel(plan(), 2), f"{folder}/cut-{WORLD}", STOP)
    if WORLD == 4:
        hybrid = treadle.FSDP2(shard_size=2, wrap=[Block])
        results["hybrid"] = result(*train(hybrid))
        kept = treadle.Checkpoints(every=treadle.Every(steps=3), keep_last=None)
        train(treadle.FSDP2(shard_size=2), f"{folder}/hybrid", STOP, trial=True, checkpoint=kept)
        results["hybrid gone on"] = result(*train(treadle.FSDP2(shard_size=2), f"{folder}/hybrid"))
    if WORLD == 2:  # what one process has left, two go on with
        results["taken over"] = result(*train(treadle.TensorParallel(plan(), 2), f"{folder}/one"))
    Path(folder, f"tensors-{WORLD}-{RANK}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
