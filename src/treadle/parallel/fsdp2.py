"""torch's FSDP2: parameters, gradients and optimizer states are cut into shards, one for each process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed._composable.checkpoint_activation import checkpoint
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from treadle.checkpoint import Shard
from treadle.parallel.all_reduce import AllReduce


class FSDP2(AllReduce):
    """Fully sharded data parallel (`fully_shard`): no process has the whole model, except layer by layer.

    Every child of the task is sharded, and within it every module of the classes in `wrap`, each of which is
    gathered before its forward and backward pass and let go after it. Gradients come back averaged and
    sharded. Checkpoints have the model and optimizer under their plain names, so a run can go on with any
    strategy and any number of processes.

    Args:
        device, timeout: see `AllReduce`.
        wrap: classes of layers that are gathered one at a time, such as a transformer's block.
        precision: in which type parameters are gathered and gradients are reduced; see torch's
            `MixedPrecisionPolicy`. None keeps those of the parameters.
        reshard_after_forward: let gathered parameters go after the forward pass; False keeps them until
            the backward pass, which costs memory and saves messages.
        cpu_offload: keep the shards in the host's memory, and step there.
        recompute: let the activations within the classes in `wrap` go after the forward pass and compute
            them again in the backward pass.
        shard_size: how many processes share one copy of the model, the accelerators of a machine, say; the
            groups have a copy each, and only gradients go between them (hybrid sharding). None: all do.
        sharded_checkpoints: every process writes its own shard into checkpoints, all at once; else rank 0
            gathers and writes whole tensors. Any number of processes loads either.

    Raises:
        ValueError: an argument is out of range; when a fit starts: the task has parameters of its own,
            outside its children, or `shard_size` does not divide the number of processes.
    """

    averages = True
    skips_empty = False

    def __init__(
        self,
        device: torch.device | None = None,
        timeout: float = 1800.0,
        wrap: Sequence[type[nn.Module]] = (),
        precision: MixedPrecisionPolicy | None = None,
        reshard_after_forward: bool = True,
        cpu_offload: bool = False,
        recompute: bool = False,
        shard_size: int | None = None,
        sharded_checkpoints: bool = True,
    ) -> None:
        super().__init__(device, timeout)
        if shard_size is not None and not (type(shard_size) is int and shard_size >= 1):
            raise ValueError(f"FSDP2: shard_size is {shard_size!r}; it must be a whole number from 1 on")
        self.shard_size = shard_size
        self.wrap = tuple(wrap)
        self.precision = precision or MixedPrecisionPolicy()
        self.reshard_after_forward = reshard_after_forward
        self.cpu_offload = cpu_offload
        self.recompute = recompute
        self.shards_checkpoints = sharded_checkpoints
        if recompute and not self.wrap:
            raise ValueError("FSDP2: recompute needs the classes of layers in wrap, such as [Block]")
        self._sharded: list[FSDPModule] = []

    def setup(self, task: nn.Module) -> None:
        """Place the task as it is on rank 0, and cut its parameters into shards."""
        own = [name for name, _ in task.named_parameters(recurse=False)]
        if own:
            raise ValueError(
                f"FSDP2: {type(task).__name__} has the parameters {own} itself, outside its children, which "
                'are what is sharded; put them into a module, or use strategy="all_reduce"'
            )
        children = [child for child in task.children() if any(True for _ in child.parameters())]
        self._sharded = [child for child in children if isinstance(child, FSDPModule)]
        self._buffers = [buffer for buffer in task.buffers() if buffer.numel()]
        if children and len(self._sharded) == len(children):
            return  # of an earlier fit
        super().setup(task)
        pinned = self.device.type != "cpu"
        options: dict[str, Any] = {
            "mesh": self.cut(task),
            "mp_policy": self.precision,
            "offload_policy": CPUOffloadPolicy(pinned) if self.cpu_offload else OffloadPolicy(),
            "reshard_after_forward": self.reshard_after_forward,
        }
        for child in children:
            for module in reversed(list(child.modules())):  # inner ones first
                if self.recompute and isinstance(module, self.wrap):
                    checkpoint(module)
                if module is not child and isinstance(module, self.wrap):
                    fully_shard(module, **options)
            fully_shard(child, **options)
        self._sharded = [child for child in children if isinstance(child, FSDPModule)]

    def kind_of(self, module: nn.Module) -> type[nn.Module]:
        """Sharding makes it a class of its own, of `FSDPModule` and the one before."""
        kind = type(module)
        return kind.__mro__[2] if isinstance(module, FSDPModule) else kind

    def cut(self, task: nn.Module) -> DeviceMesh:
        """Make the task ready to be sharded, over the mesh of processes that this returns."""
        if self.shard_size is None:
            return init_device_mesh(self.device.type, (self.world_size,))
        if self.world_size % self.shard_size:
            raise ValueError(
                f"FSDP2: shard_size is {self.shard_size}, which does not divide the number of processes, "
                f"{self.world_size}"
            )
        shape = (self.world_size // self.shard_size, self.shard_size)
        return init_device_mesh(self.device.type, shape, mesh_dim_names=("replicate", "shard"))

    def sync_gradients(self, last: bool) -> None:
        """Reduce gradients after the last micro-batch only."""
        for child in self._sharded:
            child.set_requires_gradient_sync(last)
            if not self.reshard_after_forward:  # what stays gathered need not be gathered for the next one
                child.set_reshard_after_backward(last)

    def complete_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """They are averaged already."""

    def model_state(self, task: nn.Module) -> dict[str, Any]:
        """The whole model, on the CPU of every process; all processes take part."""
        return {name: _whole(value) for name, value in task.state_dict().items()}

    def weights(self, task: nn.Module) -> Mapping[str, Any]:
        """The whole model, a tensor at a time."""
        return Gathered(task.state_dict())

    def model_to_save(self, task: nn.Module) -> dict[str, Any]:
        """The rows of this process."""
        if not self.shards_checkpoints:
            return self.model_state(task)
        return _shards(task.state_dict())

    def optimizer_to_save(self, task: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
        """The rows of this process."""
        if not self.shards_checkpoints:
            return self.optimizer_state(task, optimizer)
        state = optimizer.state_dict()
        return {**state, "state": {n: _shards(one) for n, one in state["state"].items()}}

    def tensor_to_save(self, value: Tensor) -> Any:
        """The rows of this process, or all."""
        return _shard(value) if self.shards_checkpoints else _whole(value)

    def tensor_like(self, value: Any, like: Tensor) -> Tensor:
        """The part of this process."""
        moved: Tensor = _cut(value, like).to(like.device)
        return moved

    def load_model(self, task: nn.Module, state: dict[str, Any]) -> None:
        """Cut a whole model into this process's shards."""
        own = task.state_dict()
        task.load_state_dict({n: _cut(v, own[n]) if n in own else v for n, v in state.items()})

    def optimizer_state(self, task: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
        """The whole optimizer in its plain form, as one process has it; all processes take part."""
        state = optimizer.state_dict()
        return {**state, "state": {n: _whole_of(one) for n, one in state["state"].items()}}

    def load_optimizer(self, task: nn.Module, optimizer: Optimizer, state: dict[str, Any]) -> None:
        """Cut a whole optimizer's state into shards like its parameters'."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        cut = {n: {k: _cut(v, parameters[n]) for k, v in one.items()} for n, one in state["state"].items()}
        optimizer.load_state_dict({**state, "state": cut})


class Gathered(Mapping[str, Any]):
    """Whole tensors by name, on the CPU, each gathered when all processes ask for it."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        self._state = state

    def __getitem__(self, name: str) -> Any:
        return _whole(self._state[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)


def _whole(value: Any) -> Any:
    return value.full_tensor().cpu() if isinstance(value, DTensor) else value


def _shard(value: Any) -> Any:
    if not isinstance(value, DTensor):
        return value
    mesh = value.device_mesh  # of groups that have the same shards, the first saves them
    return Shard(value.to_local(), mesh.ndim == 1 or mesh.get_local_rank(0) == 0)


def _shards(values: dict[str, Any]) -> dict[str, Any]:
    return {name: _shard(value) for name, value in values.items()}


def _whole_of(values: dict[str, Any]) -> dict[str, Any]:
    return {name: _whole(value) for name, value in values.items()}


def _cut(value: Any, like: Any) -> Any:
    if isinstance(value, Shard) and isinstance(like, DTensor):
        return _placed(value.rows, like)
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    part = like.__create_chunk_list__()[0]  # type: ignore[no-untyped-call]  # what this process has
    ranges = zip(part.offsets, part.sizes, strict=True)
    return _placed(value[tuple(slice(start, start + size) for start, size in ranges)], like)


def _placed(local: Tensor, like: DTensor) -> DTensor:
    local = local.to(like.device, copy=True, memory_format=torch.contiguous_format)
    return DTensor.from_local(
        local, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )
