"""Memory of a process by strategy and number of processes, beside the formula of docs/scale.md.

torchrun --nproc-per-node 2 benchmarks/memory_per_process.py fsdp2
MALLOC_MMAP_THRESHOLD_=65536 torchrun --nproc-per-node 2 benchmarks/memory_per_process.py fsdp2

With the variable, memory that was let go goes back to the system at once: what is resident is what is held.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

import treadle

WIDTH, LAYERS, STEPS = 1024, 16, 11


class Counted(treadle.Callback):
    """Bytes of parameters, gradients and states that this process has when the optimizer has stepped.

    Attributes:
        held: of the tensors, by the formula's reckoning.
        resident: of the process, then.
    """

    held = resident = 0
    began = ended = 0.0

    def on_step_end(self, state: treadle.State) -> None:
        self.began, self.ended = self.began or time.perf_counter(), time.perf_counter()

    def on_after_optimizer_step(self, state: treadle.State) -> None:
        parameters = list(state.task.parameters())
        states = [v for o in state.optimizers.values() for s in o.state.values() for v in s.values()]
        self.held = sum(map(own_bytes, [*parameters, *(p.grad for p in parameters), *states]))
        self.resident = resident()


def own_bytes(value: Any) -> int:
    tensor = value.to_local() if isinstance(value, DTensor) else value
    return tensor.numel() * tensor.element_size() if isinstance(tensor, torch.Tensor) else 0


def resident() -> int:
    """The memory of this process now, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def main(strategy: str) -> None:
    torch.set_num_threads(1)
    made: Any = treadle.FSDP2(wrap=[nn.Linear]) if strategy == "fsdp2" else strategy
    counted = Counted()
    trainer = treadle.Trainer(
        max_steps=STEPS, run_dir=None, progress=False, seed=0, strategy=made, callbacks=[counted]
    )
    trainer.strategy.join()
    warm = treadle.SupervisedTask(nn.Linear(8, 8), nn.functional.mse_loss, torch.optim.AdamW, lr=1e-3)
    trainer.fit(warm, (torch.randn(8, 8), torch.randn(8, 8)))
    before = resident()
    network = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS)))
    task = treadle.SupervisedTask(network, nn.functional.mse_loss, torch.optim.AdamW, lr=1e-3)
    data = treadle.Loader((torch.randn(8, WIDTH), torch.randn(8, WIDTH)), 8)
    trainer.fit(task, data)
    size, ranks = 4 * LAYERS * WIDTH * WIDTH, trainer.strategy.world_size
    formula = 16 * LAYERS * WIDTH * WIDTH / (ranks if strategy == "fsdp2" else 1)
    if trainer.strategy.is_main:
        print(
            f"{strategy} on {ranks}: parameters {size / 1e6:.1f} MB, formula {formula / 1e6:.1f}, "
            f"held {counted.held / 1e6:.1f}, resident {(counted.resident - before) / 1e6:.1f}, "
            f"a step {(counted.ended - counted.began) / (STEPS - 1) * 1e3:.0f} ms"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
