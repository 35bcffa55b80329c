"""Batches on several processes that must take every step, and see every sample, together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from treadle.data.batch import batch_items, take
from treadle.data.order import Indices
from treadle.data.source import Batches

AnyLeft = Callable[[bool], bool]
"""Whether any process still has a batch, given whether this one has; asked by all at the same time."""


def is_empty(batch: Any) -> bool:
    """Whether a batch has no items; one whose items cannot be counted has some."""
    if batch is None:
        return True
    try:
        return batch_items(batch) == 0
    except ValueError:
        return False


class Wrapped(Batches):
    """Batches as others give them. Base class of those that change how they are read."""

    def __init__(self, batches: Batches) -> None:
        self._inner = batches
        self.length = batches.length
        self.num_samples = batches.num_samples

    def iterate(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """The batches of `epoch` from number `start`."""
        return self._inner.iterate(epoch, start)

    def look(self) -> Iterator[Any]:
        """All batches, once."""
        return self._inner.look()

    def state_dict(self) -> dict[str, Any]:
        """The state of the batches within."""
        return self._inner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self._inner.load_state_dict(state)

    def indices(self, epoch: int, batch: int) -> Indices | None:
        """The samples of a batch on this rank."""
        return self._inner.indices(epoch, batch)

    def close(self) -> None:
        """Stop workers."""
        self._inner.close()


class Together(Wrapped):
    """Every process has a batch as long as any has: None where its own are used up.

    For data of which nobody can say beforehand that all processes have equally many batches.

    Args:
        batches: this process's own.
        any_left: asks all processes before each batch.
        length: the most batches that any process has, None where that is unknown.
    """

    def __init__(self, batches: Batches, any_left: AnyLeft, length: int | None) -> None:
        super().__init__(batches)
        self.length = length
        self._any_left = any_left

    def iterate(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """The batches of `epoch` from number `start`, then None until no process has any."""
        return self._aligned(self._inner.iterate(epoch, start))

    def look(self) -> Iterator[Any]:
        """All batches, once, then None until no process has any."""
        return self._aligned(self._inner.look())

    def _aligned(self, own: Iterator[Any]) -> Iterator[Any]:
        missing = object()
        while True:
            batch = next(own, missing)
            if not self._any_left(batch is not missing):
                return
            yield None if batch is missing else batch


class Filled(Together):
    """Every process has a batch as long as any has: one without items where its own are used up.

    For strategies in which every process runs the model in every step. What an empty batch looks like is
    learned from a process that has one, so those that never have any take part too.

    Args:
        batches, any_left, length: see `Together`.
        gather: gives every process's value to all, by rank.
    """

    def __init__(
        self, batches: Batches, any_left: AnyLeft, length: int | None, gather: Callable[[Any], list[Any]]
    ) -> None:
        super().__init__(batches, any_left, length)
        self._gather = gather

    def _aligned(self, own: Iterator[Any]) -> Iterator[Any]:
        empty = None
        for batch in super()._aligned(own):
            if empty is None:  # with the first batch, for which all processes are here
                seen = self._gather(None if batch is None else take(batch, 0, 0))
                empty = next(one for one in seen if one is not None)
            yield empty if batch is None else batch


class Present(Wrapped):
    """Only the batches that have items here, remembering where they stand among all.

    Attributes:
        positions: the numbers of the batches that the last `look` gave.
    """

    def __init__(self, batches: Batches) -> None:
        super().__init__(batches)
        self.positions: list[int] = []

    def look(self) -> Iterator[Any]:
        """Every batch with items, once."""
        self.positions = []
        for position, batch in enumerate(self._inner.look()):
            if not is_empty(batch):
                self.positions.append(position)
                yield batch
