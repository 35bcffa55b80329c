"""Numbers from tensors, wherever they are, with as little waiting as can be."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

_DTYPE = attrgetter("dtype")


def read_scalars(values: Iterable[Tensor | float]) -> list[float]:
    """Numbers from one-element tensors, wherever they are, in one copy for each device and type.

    This is the one place where logging waits for the device.
    """
    numbers: list[Any] = list(values)
    kinds = set(map(type, numbers))
    if kinds <= {int, float}:
        return numbers if kinds == {float} else list(map(float, numbers))
    if kinds == {Tensor} and len(numbers) > 1 and _are_alike(numbers):
        return torch.stack(numbers).double().tolist()  # waits for the device
    groups: dict[tuple[torch.dtype, torch.device], list[int]] = {}
    for position, value in enumerate(numbers):
        if isinstance(value, Tensor):
            groups.setdefault((value.dtype, value.device), []).append(position)
        else:
            numbers[position] = float(value)
    for positions in groups.values():
        given = [numbers[position] for position in positions]
        stacked = torch.stack([value.reshape(()) if value.ndim else value for value in given])
        read = stacked.double().tolist()  # waits for the device
        for position, number in zip(positions, read, strict=True):
            numbers[position] = number
    return numbers


def _are_alike(tensors: list[Tensor]) -> bool:
    """Whether these are scalars of one type on one device."""
    same = len(set(map(_DTYPE, tensors))) == 1 and len(set(map(Tensor.get_device, tensors))) == 1
    return same and set(map(Tensor.dim, tensors)) == {0} and len({one.device for one in tensors[:2]}) == 1
