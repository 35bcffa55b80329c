"""What torchrun starts to see averages of sharded weights: `averaging.py FOLDER`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tests.distributed.scenes import history_of, samples, whole
from tests.distributed.tensors import Network, plan
from torch.nn.functional import cross_entropy

import treadle
from treadle.callbacks import BestWeights, ExponentialMovingAverage, StochasticWeightAveraging

RANK, WORLD = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
STEPS, STOP = 20, 9

AVERAGES: dict[str, Callable[[], treadle.Callback]] = {
    "exponential": lambda: ExponentialMovingAverage(0.8),
    "stochastic": lambda: StochasticWeightAveraging(start=4),
}
KEEPING: dict[str, Callable[[], treadle.Callback]] = {
    **AVERAGES,
    "best": lambda: BestWeights("val/loss", "max"),  # of the first evaluation, before the run is cut
}


def train(strategy: Any, kind: str, folder: str, steps: int = STEPS, **options: Any) -> dict[str, Any]:
    torch.manual_seed(7)
    task = treadle.SupervisedTask(Network(), cross_entropy, torch.optim.AdamW, lr=0.03)
    trainer = treadle.Trainer(
        max_steps=steps,
        seed=11,
        run_dir=folder,
        progress=False,
        strategy=strategy,
        callbacks=[KEEPING[kind]()],
        **options,
    )
    run = trainer.fit(task, treadle.Loader(samples(25), 4, shuffle=True), samples(11), resume="last")
    return {"weights": whole(task, trainer), "history": history_of(run), "sha": run.weights_sha256}


def strategies() -> dict[str, Callable[[], Any]]:
    return {
        "all_reduce": lambda: "all_reduce",
        "shards": lambda: treadle.FSDP2(),
        "whole": lambda: treadle.FSDP2(sharded_checkpoints=False),
        "tensors": lambda: treadle.TensorParallel(plan(), 2),
    }


def main(folder: str) -> None:
    results = {}
    for name, make in strategies().items():
        for kind in KEEPING:
            own = f"{folder}/{name}-{kind}"
            train(make(), kind, own, STOP, trial=True)
            results[f"{name}-{kind}"] = train(make(), kind, own)
    Path(folder, f"averaging-{RANK}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
