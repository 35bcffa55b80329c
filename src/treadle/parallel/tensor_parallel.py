"""Tensor parallelism: several processes compute one share of a batch together, each a part of every layer."""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor.parallel import ParallelStyle, parallelize_module
from torch.optim import Optimizer

from treadle.parallel.fsdp2 import FSDP2

Plan = Mapping[str, ParallelStyle]


class TensorParallel(FSDP2):
    """Layers are cut over groups of `size` processes, by a plan; the groups shard the model by FSDP2.

    The processes form a mesh of two dimensions: those of one group, which are neighbours by rank, read the
    same samples and compute them together; the groups share each batch out. With as many processes as
    `size` there is one group, and no data parallelism. The plan is torch's, of `parallelize_module`: styles
    such as ``ColwiseParallel()`` by the names of modules, which may have patterns. A pair of layers that
    needs one message is a ColwiseParallel one, what acts on each element, and a RowwiseParallel one.

    Layers that the plan leaves out compute the same on each process of a group, whose generators are alike:
    dropout between the two layers of a pair has the same mask on each part. Checkpoints hold whole tensors
    under their plain names, written by rank 0; any strategy goes on from them.

    Args:
        plan: a parallel style by name, as `task.named_modules()` has them:
            ``{"model.blocks.*.up": ColwiseParallel(), "model.blocks.*.down": RowwiseParallel()}``.
        size: processes in a group.
        device, timeout, wrap, precision, reshard_after_forward, cpu_offload, recompute: see `FSDP2`.

    Raises:
        TypeError: the plan has something else than parallel styles.
        ValueError: the plan is empty, or `size` is not from 2 on; when a fit starts: `size` does not divide
            the number of processes or the layers it should cut, or the plan names no module.
    """

    def __init__(
        self,
        plan: Plan,
        size: int,
        device: torch.device | None = None,
        timeout: float = 1800.0,
        **options: Any,
    ) -> None:
        for name in {"sharded_checkpoints", "shard_size"} & options.keys():
            raise ValueError(
                f"TensorParallel: {name} is given; all groups share one copy of the model, and checkpoints "
                "are whole, since a shard holds rows and tensor parallel layers may be cut by columns"
            )
        super().__init__(device, timeout, sharded_checkpoints=False, **options)
        if isinstance(size, bool) or not isinstance(size, int) or size < 2:
            raise ValueError(f"TensorParallel: size is {size!r}; it must be a whole number from 2 on")
        if not isinstance(plan, Mapping) or not plan:
            raise ValueError(
                f"TensorParallel: plan is {plan!r}; give parallel styles by the names of modules, such as "
                '{"model.up": ColwiseParallel()}'
            )
        for name, style in plan.items():
            if not isinstance(style, ParallelStyle):
                raise TypeError(
                    f"TensorParallel: plan[{name!r}] is {style!r}; give one of torch.distributed.tensor."
                    "parallel, such as ColwiseParallel()"
                )
        self.plan = dict(plan)
        self.size = size

    def join(self) -> None:
        """Meet the other processes; see `AllReduce.join`."""
        super().join()
        if self.world_size % self.size:
            raise ValueError(
                f"TensorParallel: size is {self.size}, which does not divide the {self.world_size} processes"
            )
        self.data_rank, self.data_size = self.rank // self.size, self.world_size // self.size

    def cut(self, task: nn.Module) -> DeviceMesh:
        """Cut layers over each group by the plan; returns the mesh of the groups."""
        styles = self._styles(task)
        mesh = init_device_mesh(
            self.device.type, (self.data_size, self.size), mesh_dim_names=("data", "tensor")
        )
        for name, style in styles.items():
            module = task.get_submodule(name)
            self._check(name, module, parallelize_module(module, mesh["tensor"], style))
        return mesh["data"]

    def model_state(self, task: nn.Module) -> dict[str, Any]:
        """The whole model, on the CPU of every process; all processes take part."""
        with _quietly():
            return super().model_state(task)

    def weights(self, task: nn.Module) -> Mapping[str, Any]:
        """The whole model."""
        return self.model_state(task)

    def optimizer_state(self, task: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
        """The whole optimizer in its plain form; all processes take part."""
        with _quietly():
            return super().optimizer_state(task, optimizer)

    def _styles(self, task: nn.Module) -> dict[str, ParallelStyle]:
        names = [name for name, _ in task.named_modules() if name]
        styles: dict[str, ParallelStyle] = {}
        for pattern, style in self.plan.items():
            found = [name for name in names if _matches(name, pattern)]
            if not found:
                close = ", ".join(map(repr, names[:12])) + (", ..." if len(names) > 12 else "")
                raise ValueError(
                    f"TensorParallel: plan names {pattern!r}, and {type(task).__name__} has no such module; "
                    f"it has {close}"
                )
            styles.update(dict.fromkeys(found, style))
        return styles

    def _check(self, name: str, module: nn.Module, cut: nn.Module) -> None:
        for own, parameter in module.named_parameters():
            if not isinstance(parameter, DTensor):
                continue
            for placement in parameter.placements:
                length = parameter.shape[placement.dim] if isinstance(placement, Shard) else 0
                if length % self.size:
                    raise ValueError(
                        f"TensorParallel: {name}.{own} has the shape {tuple(parameter.shape)}, and its "
                        f"dimension of {length} cannot be cut into {self.size} equal parts"
                    )


def _matches(name: str, pattern: str) -> bool:
    """Part by part, as torch does: "blocks.*" is "blocks.0", and not "blocks.0.up"."""
    parts, patterns = name.split("."), pattern.split(".")
    return len(parts) == len(patterns) and all(map(fnmatch.fnmatchcase, parts, patterns))


@contextmanager
def _quietly() -> Iterator[None]:
    """Without torch's warning, for each tensor, that what is cut twice is gathered twice."""
    logger = logging.getLogger("torch.distributed.tensor._redistribute")

    def silence(record: logging.LogRecord) -> bool:
        return "sequential all_gather" not in record.getMessage()

    logger.addFilter(silence)
    try:
        yield
    finally:
        logger.removeFilter(silence)
