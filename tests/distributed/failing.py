"""What torchrun starts to see it fail: `failing.py FOLDER STRATEGY KIND HOOK RANK`.

It trains, evaluates and predicts. Where the process of RANK comes to HOOK, in the second of three epochs, it
raises an error or kills itself, once: not when torchrun has started it again.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import torch
from tests.distributed.scenes import Dropped, samples
from torch.nn.functional import cross_entropy

import treadle

CAUSE = "the very first cause"


class Trouble(treadle.Callback):
    def __init__(self, kind: str, hook: str, rank: int) -> None:
        self.kind, self.rank, self.first = kind, rank, {"on_fit_start": 0}.get(hook, 8)
        if kind != "none":
            setattr(self, hook, self.strike)

    def strike(self, state: treadle.State) -> None:
        strategy, progress = state.engine.strategy, state.progress
        looking = state.mode == "predict"
        if strategy.rank != self.rank or not (looking or progress.step >= self.first):
            return
        print(f"trouble at {time.time()}", flush=True)
        if self.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise ArithmeticError(CAUSE)


def main(folder: str, strategy: str, kind: str, hook: str, rank: str) -> None:
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0:
        kind = "none"
    torch.manual_seed(7)
    optimizer = partial(torch.optim.SGD, momentum=0.9)
    task = treadle.SupervisedTask(Dropped(), cross_entropy, optimizer, lr=0.1)
    trainer = treadle.Trainer(
        max_epochs=3,
        seed=11,
        run_dir=folder,
        callbacks=[Trouble(kind, hook, int(rank))],
        checkpoint=treadle.Checkpoints(every=treadle.Every(steps=1), keep_last=None),
        progress=False,
        log_every=1,
        strategy=strategy,
    )
    run = trainer.fit(task, treadle.Loader(samples(44), 8, shuffle=True), samples(10), resume="last")
    trainer.predict(task, samples(5))
    if trainer.strategy.is_main:
        Path(folder, "end.json").write_text(json.dumps(run.weights_sha256))


if __name__ == "__main__":
    main(*sys.argv[1:])
