"""What torchrun starts to see FSDP2 at work: `sharding.py FOLDER`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tests.distributed.scenes import history_of, samples, whole
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor
from torch.nn.functional import cross_entropy
from torch.profiler import ProfilerActivity, profile

import treadle

RANK, WORLD = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
LAYERS, ACCUMULATE = 3, 4


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(7, 7)
        self.calls = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        return inputs + torch.tanh(self.inner(inputs))


class Network(nn.Module):
    """Sizes that no number of processes divides, and a layer with fewer rows than four processes."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 7)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.leave = nn.Linear(7, 3)
        self.register_buffer("scale", torch.tensor([1.0, 0.5, 2.0]))

    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = self.leave(self.blocks(self.enter(inputs))) * self.scale
        return output


def make_task() -> treadle.Task:
    torch.manual_seed(7)
    return treadle.SupervisedTask(Network(), cross_entropy, torch.optim.AdamW, lr=0.03)


def loader() -> treadle.Loader:
    return treadle.Loader(samples(44), 4, shuffle=True)


def train(
    strategy: Any, folder: str | None = None, max_steps: int = 6, **options: Any
) -> tuple[treadle.Trainer, treadle.Task, treadle.Run]:
    trainer = treadle.Trainer(
        max_steps=max_steps,
        accumulate=ACCUMULATE,
        clip_norm=1.0,
        seed=11,
        run_dir=folder,
        progress=False,
        strategy=strategy,
        checkpoint=treadle.Checkpoints(every=treadle.Every(steps=1), keep_last=None),
        **options,
    )
    task = make_task()
    return trainer, task, trainer.fit(task, loader(), samples(10), resume="last" if folder else None)


def counted(strategy: treadle.FSDP2) -> dict[str, float]:
    """Collectives of a step over four micro-batches, from the difference of three steps and one."""
    counts = []
    for steps in (1, 3):
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            train(strategy := again(strategy), max_steps=steps)
        found = {"gather": 0, "scatter": 0}
        for event in seen.key_averages():
            if event.key.startswith("c10d::_allgather_base_"):
                found["gather"] += event.count
            if event.key.startswith("c10d::_reduce_scatter_base_"):
                found["scatter"] += event.count
        counts.append(found)
    return {name: (counts[1][name] - counts[0][name]) / 2 for name in counts[0]}


def again(strategy: treadle.FSDP2) -> treadle.FSDP2:
    return treadle.FSDP2(wrap=strategy.wrap, reshard_after_forward=strategy.reshard_after_forward)


def variant(make: Callable[[], treadle.FSDP2]) -> dict[str, Any]:
    trainer, task, run = train(make())
    assert isinstance(task, treadle.SupervisedTask)
    network: Any = task.model
    parameter = next(network.blocks[0].parameters())
    return {
        "weights": whole(task, trainer),
        "history": history_of(run),
        "rows": parameter.to_local().shape[0] if isinstance(parameter, DTensor) else -1,
        "calls": network.blocks[0].calls,
        "sha": run.weights_sha256,
    }


def all_variants(folder: str) -> dict[str, Any]:
    """Every option; collectives; a run saved in shards, stopped in its middle, and gone on with."""
    wrap = [Block]
    results: dict[str, Any] = {
        "plain": variant(lambda: treadle.FSDP2()),
        "wrapped": variant(lambda: treadle.FSDP2(wrap=wrap)),
        "offloaded": variant(lambda: treadle.FSDP2(wrap=wrap, cpu_offload=True)),
        "recomputed": variant(lambda: treadle.FSDP2(wrap=wrap, recompute=True)),
        "kept": variant(lambda: treadle.FSDP2(wrap=wrap, reshard_after_forward=False)),
        "bf16": variant(
            lambda: treadle.FSDP2(
                wrap=wrap,
                precision=MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32),
            )
        ),
        "collectives": counted(treadle.FSDP2(wrap=wrap)),
        "collectives kept": counted(treadle.FSDP2(wrap=wrap, reshard_after_forward=False)),
    }
    for name, steps in (("whole", 6), ("part", 3), ("part", 6)):
        trainer, task, run = train(treadle.FSDP2(wrap=wrap), f"{folder}/{name}", steps)
        results[name] = {"weights": whole(task, trainer), "sha": run.weights_sha256}
        if steps == 3:
            results["at 3"] = results[name]
    return results


def going_on(folder: str) -> dict[str, Any]:
    """Go on from the shards of two processes."""
    trainer, task, _ = train(treadle.FSDP2(wrap=[Block]), f"{folder}/to-{WORLD}", 6)
    return {"weights": whole(task, trainer)}


def main(folder: str) -> None:
    results = all_variants(folder) if WORLD == 2 else going_on(folder)
    Path(folder, f"sharding-{WORLD}-{RANK}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
