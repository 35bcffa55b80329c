"""A tensor of which this process has only some rows."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Shard:
    """The rows of a tensor that this process has, perhaps none; by rank, all processes' make it up.

    Attributes:
        rows: a plain tensor [rows here, ...].
        is_saved: whether a checkpoint has them from this process; another one has the same.
    """

    rows: Tensor
    is_saved: bool = True
