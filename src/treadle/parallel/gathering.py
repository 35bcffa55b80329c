"""Outputs of several processes, made one stream in data order."""

from __future__ import annotations

import math
from collections.abc import Callable
from operator import itemgetter
from typing import Any

import torch

from treadle.data import Batches, map_tree, move
from treadle.engine import Engine
from treadle.parallel.batches import Present

Add = Callable[[Any], None]

EVERY = 16


class Gathering:
    """What a model says of each batch on its way to where it is kept. Base class: one process.

    Args:
        add: takes in what is said of one batch, in data order.
    """

    def __init__(self, add: Add) -> None:
        self.add = add

    def finish(self) -> None:
        """There are no more batches."""


class SharedGathering(Gathering):
    """Each process sees its share of a batch, and `add` on every one gets all shares, by batch and process.

    They meet every few batches, so none has to hold more than those. A process may have fewer batches
    than another: it goes on meeting the others until they have finished too. So between the first batch and
    `finish` no process may ask the others for anything else, unless they meet at the end alone.

    Args:
        add: see `Gathering`.
        gather: gives every process's value to all; see `Engine.gather_shares`.
        batches: what the loop reads.
        every: how many batches lie between two meetings.
    """

    def __init__(
        self, add: Add, gather: Callable[[Any], list[Any]], batches: Batches, every: int = EVERY
    ) -> None:
        super().__init__(self._add)
        self._sink, self._gather, self._batches, self._every = add, gather, batches, every
        self._seen = 0
        self._own: list[tuple[int, Any]] = []
        self._held: list[tuple[int, int, Any]] = []  # batch, process, output

    def finish(self) -> None:
        """There are no more batches here."""
        while not self._meet(finished=True):
            pass

    def _add(self, output: Any) -> None:
        batches = self._batches
        position = batches.positions[-1] if isinstance(batches, Present) else self._seen
        self._seen += 1
        self._own.append((position, map_tree(_copied, output)))
        if len(self._own) == self._every:
            self._meet(finished=False)

    def _meet(self, finished: bool) -> bool:
        """Exchange what there is; hand on what nobody can come before. Returns whether all have finished."""
        own, self._own = self._own, []
        parts = self._gather([finished, [list(entry) for entry in own]])
        reached: list[float] = []
        for rank, (done, entries) in enumerate(parts):
            self._held += [(position, rank, output) for position, output in entries]
            reached.append(math.inf if done else entries[-1][0])
        self._held.sort(key=itemgetter(0, 1))
        while self._held and self._held[0][0] <= min(reached):
            self._sink(self._held.pop(0)[2])
        return all(done for done, _ in parts)


def gathering(engine: Engine, add: Add, batches: Batches, every: int = EVERY) -> Gathering:
    """How what an engine's model says of `batches` gets to `add`; see `SharedGathering`."""
    if not engine.strategy.is_shared:
        return Gathering(add)
    return SharedGathering(add, engine.gather_shares, batches, every)


def _copied(leaf: Any) -> Any:
    # A model may write its next output over this one.
    return leaf.detach().to("cpu", copy=True) if isinstance(leaf, torch.Tensor) else move(leaf, "cpu")
