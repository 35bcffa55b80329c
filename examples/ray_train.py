"""Train on the digits under Ray Train: the task and the trainer are those of one process.

Ray starts the processes, sets torchrun's variables and torch's process group; strategy="auto" follows them.
A worker that dies is started again with the others, and the run goes on from its last checkpoint.

pip install 'treadle[ray]'
python examples/ray_train.py [--workers 2] [--epochs 3] [--run-dir runs/ray]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import treadle


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def train(options: dict[str, Any]) -> None:
    """What every worker does, and what one process does without Ray."""
    torch.manual_seed(0)
    task = treadle.SupervisedTask(
        network(),
        cross_entropy,
        torch.optim.AdamW,
        lr=1e-2,
        metrics={"accuracy": treadle.metrics.Accuracy()},
    )
    trainer = treadle.Trainer(
        max_epochs=options["epochs"], seed=0, run_dir=options["run_dir"], progress=False
    )
    loader = treadle.Loader(treadle.data.Digits("train"), batch_size=64, shuffle=True)
    trainer.fit(task, loader, treadle.data.Digits("val"), resume="last")


def under_ray(workers: int, options: dict[str, Any]) -> None:
    """Run `train` on so many workers of this machine; a cluster needs another `ray.init`."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    try:
        TorchTrainer(
            train,
            train_loop_config=options,
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=torch.cuda.is_available()),
            torch_config=TorchConfig(backend=None if torch.cuda.is_available() else "gloo"),
            run_config=RunConfig(
                storage_path=f"{options['run_dir']}-ray", failure_config=FailureConfig(max_failures=3)
            ),
        ).fit()
    finally:
        ray.shutdown()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--run-dir", default="runs/ray")
    given = parser.parse_args(arguments)
    run_dir = str(Path(given.run_dir).absolute())  # workers have folders of their own
    under_ray(given.workers, {"epochs": given.epochs, "run_dir": run_dir})
    run = treadle.Run.open(run_dir)
    print(f"{run.status}: val/accuracy {run.history['val/accuracy'][-1]:.3f} on {given.workers} workers")


if __name__ == "__main__":
    main()
