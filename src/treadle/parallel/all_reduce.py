"""Several processes that share every step; gradients are added once, when they are complete."""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from treadle.data import move
from treadle.parallel.environment import Place, place_of
from treadle.parallel.pulse import Pulse
from treadle.strategy import Items, Strategy

BUCKET = 32 << 20
"""Elements that are reduced at once: large enough to amortise a message, small beside a large model."""


class AllReduce(Strategy):
    """Data parallel: every process has the whole model and a share of every batch.

    When a step's last micro-batch is through, the gradients are added in one coalesced all-reduce a bucket.
    Nothing is assumed of how the task computes them: any number of forward passes, parameters that some or
    all ranks leave out, frozen ones, ranks without a single sample. `DDP` has the same results and
    communicates while the backward pass runs, for tasks that fit it.

    The parameters of rank 0 count at the beginning. Buffers are those of the last rank after every step: its
    share of a batch is never empty.

    Args:
        device: where this process computes; None lets the trainer choose.
        timeout: seconds after which a process that waits for the others gives up.

    Raises:
        ValueError: the environment's variables do not fit together, or `timeout` is not positive.
    """

    is_shared = True

    averages = False
    """Whether gradients are averaged over ranks rather than added."""

    skips_empty = True
    """Whether a rank without samples may leave out the forward and backward pass."""

    def __init__(self, device: torch.device | None = None, timeout: float = 1800.0) -> None:
        super().__init__(torch.device("cpu") if device is None else device)
        if not timeout > 0:
            raise ValueError(f"{type(self).__name__}: timeout is {timeout!r}; it must be a positive number")
        self.timeout = timeout
        self.place = place_of()
        self.rank, self.world_size = self.place.rank, self.place.world_size
        self.data_rank, self.data_size = self.rank, self.world_size
        self.pulse = Pulse()
        self._buffers: list[Tensor] = []

    @property
    def keeps_gradients(self) -> bool:
        """Where gradients are added, what is kept of them is kept on one rank, so that it is added once."""
        return self.averages or self.is_main

    @property
    def is_first(self) -> bool:
        """Whether what this process counts is counted: one does for all that have the same samples."""
        return self.rank % (self.world_size // self.data_size) == 0

    # -- meeting ------------------------------------------------------------------------------------------

    def join(self) -> None:
        """Meet the other processes, once; a group that exists already is used as it is."""
        if not dist.is_initialized():
            self.place = place_of()  # it may have been made in another process than this one
            if self.device.type == "cuda":
                torch.cuda.set_device(self.device)
            _initialize(self.place, self.device, self.timeout)
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.data_rank, self.data_size = self.rank, self.world_size
        self.pulse = Pulse()

    # -- numbers and bytes ----------------------------------------------------------------------------------

    def exchange(self, numbers: list[float]) -> list[float]:
        """Add numbers over all shares of the batch, on the host; wishes to stop ride along."""
        own = numbers if self.is_first else [0.0] * len(numbers)
        values = torch.tensor([*own, *self.pulse.beat(self.is_main)], dtype=torch.float64)
        dist.all_reduce(values)
        sums: list[float] = values.tolist()
        self.pulse.heard(sums[len(numbers) :])
        return sums[: len(numbers)]

    def reduce(self, numbers: list[float]) -> list[float]:
        """Add numbers over all shares of the batch."""
        return self.exchange(numbers)

    def gather(self, tree: Any) -> list[Any]:
        """What every process gives, by rank; tensors come out on the CPU."""
        gathered: list[Any] = [None] * self.world_size
        dist.all_gather_object(gathered, move(tree, "cpu"))
        return gathered

    # -- the step -------------------------------------------------------------------------------------------

    def setup(self, task: nn.Module) -> None:
        """Place the task, and make parameters and buffers those of rank 0."""
        super().setup(task)
        self._buffers = [buffer for buffer in task.buffers() if buffer.numel()]
        with torch.no_grad():
            self.broadcast([*task.parameters(), *self._buffers], source=0)

    def shares(self, items: Sequence[Items]) -> tuple[list[float | Tensor], Items]:
        """Each micro-batch's part of the step's items over all processes, and their total.

        Averaging gradients divides by the number of processes, so there the parts are as many times larger.
        Items that a task counts on the device are added there, and nobody waits for them.
        """
        known = [float(count) for count in items if not isinstance(count, Tensor)]
        counted = [count for count in items if isinstance(count, Tensor)]
        total, tensors = self.exchange([sum(known), float(bool(counted))])
        factor = self.data_size if self.averages else 1
        if not tensors:
            return [float(count) * factor / total if total else 0.0 for count in items], total
        on_device = torch.zeros((), dtype=torch.float32, device=self.device)
        for count in counted if self.is_first else ():
            on_device += count
        dist.all_reduce(on_device)
        on_device += total
        whole = torch.where(on_device > 0, on_device, 1)  # items may be fractions, or none
        return [count * factor / whole for count in items], on_device

    def complete_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add the gradients of all processes.

        A parameter without a gradient on every rank keeps none; without one on some, it gets the others'.
        """
        for bucket in buckets([p for p in parameters if p.requires_grad]):
            self._add(bucket)

    def after_step(self) -> None:
        """Called when the optimizers have stepped."""
        self.broadcast(self._buffers, source=self.world_size - 1)

    def broadcast(self, tensors: Iterable[Tensor], source: int) -> None:
        """Make tensors those of one rank, in place."""
        for bucket in buckets(tensors):
            flat = torch.cat([tensor.detach().reshape(-1) for tensor in bucket])
            dist.broadcast(flat, source)
            for tensor, part in zip(bucket, _parts(flat, bucket), strict=True):
                tensor.detach().copy_(part)

    def _add(self, bucket: list[Tensor]) -> None:
        present = torch.tensor([float(p.grad is not None) for p in bucket], dtype=bucket[0].dtype)
        pieces = []
        for parameter in bucket:
            gradient = parameter.grad
            if gradient is not None and gradient.layout is not torch.strided:
                raise TypeError(
                    f"a gradient of shape {tuple(gradient.shape)} is sparse, and several processes add dense "
                    "ones only: build its layer with sparse=False"
                )
            pieces.append(
                parameter.new_zeros(parameter.numel()) if gradient is None else gradient.reshape(-1)
            )
        flat = torch.cat([*pieces, present.to(bucket[0].device)])
        dist.all_reduce(flat)
        anywhere: list[bool] | None = None
        for number, (parameter, part) in enumerate(zip(bucket, _parts(flat, bucket), strict=True)):
            if parameter.grad is not None:
                parameter.grad.copy_(part)
                continue
            if anywhere is None:  # waits for the device, where a rank left out a parameter
                anywhere = (flat[-len(bucket) :] > 0).tolist()
            if anywhere[number]:
                parameter.grad = torch.empty_like(parameter).copy_(part)


def buckets(tensors: Iterable[Tensor], limit: int = BUCKET) -> Iterator[list[Tensor]]:
    """Tensors of one type and device, in order, with at most `limit` elements together (or a single one)."""
    groups: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for tensor in tensors:
        key = (tensor.device, tensor.dtype)
        group = groups.setdefault(key, [])
        if group and sum(one.numel() for one in group) + tensor.numel() > limit:
            yield groups.pop(key)
            group = groups.setdefault(key, [])
        group.append(tensor)
    yield from groups.values()


def _parts(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    pieces = flat[: sum(tensor.numel() for tensor in like)].split([tensor.numel() for tensor in like])  # type: ignore[no-untyped-call]
    return [piece.view(tensor.shape) for piece, tensor in zip(pieces, like, strict=True)]


def _initialize(place: Place, device: torch.device, timeout: float) -> None:
    # Torch imports this when an optimizer first steps, and its functions' defaults would keep the group and
    # its threads until the interpreter is gone, which then aborts at times. Now there is no group to keep.
    import torch.distributed.nn

    own = dist.get_default_backend_for_device(device)
    # Small numbers go between hosts by gloo, so that nobody waits for a device to learn them.
    backend = "gloo" if own == "gloo" else f"cpu:gloo,{device.type}:{own}"
    options: dict[str, Any] = {"rank": place.rank, "world_size": place.world_size}
    if place.world_size == 1:
        options["store"] = torch._C._distributed_c10d.HashStore()
    elif "MASTER_ADDR" in os.environ and "RANK" in os.environ:
        options["init_method"] = "env://"  # where torchrun's agent keeps the store, this finds it
    else:
        options["init_method"] = f"tcp://{place.address}:{place.port}"
    dist.init_process_group(backend, timeout=timedelta(seconds=timeout), **options)
    atexit.register(_leave)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
        # What still keeps the group (a module that DDP or FSDP2 has wrapped) keeps its threads; one that
        # waits for the interpreter when that ends would abort the process. Now it gets it.
        time.sleep(0.05)
