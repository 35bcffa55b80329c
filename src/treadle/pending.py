"""Values that were logged and are in no curve yet."""

from __future__ import annotations

import warnings
from collections import defaultdict
from itertools import chain
from operator import attrgetter
from typing import Any

from torch import Tensor

from treadle.scalars import read_scalars

Logged = tuple[int, Tensor | float, Tensor | float, int | None]
"""What was logged under a name: step, value, items; and the version of a tensor that is not ours alone."""

Column = tuple[list[int], list[float], list[float]]
"""All that was logged under a name: steps, values and items as numbers, in the order they came."""

_VERSION = attrgetter("_version")


class Pending:
    """What one loop has logged since the last log boundary. Base class: the model is on the CPU.

    Nothing has to be waited for there, and taking the number out of a tensor at once costs less than keeping
    the tensor; so what is recorded is what it was, whatever becomes of the tensor.

    Attributes:
        columns: by name; numbers are appended by `State.log` itself.
    """

    def __init__(self) -> None:
        self.columns: defaultdict[str, list[Logged]] = defaultdict(list)

    def add(self, name: str, step: int, value: Tensor, items: Tensor | float) -> None:
        """Log a tensor of one element.

        Raises:
            ValueError: it has another number of elements, or not all of them are in this process.
        """
        if type(value) is not Tensor:
            check_scalar(name, value)
        try:
            number = value.item()
        except RuntimeError:
            check_scalar(name, value)
            raise
        self.columns[name].append((step, number, items, None))

    def drop_after(self, step: int) -> None:
        """Forget the values of later steps: one that was cut off, or is to be tried again."""
        for entries in self.columns.values():
            while entries and entries[-1][0] > step:
                entries.pop()

    def clear(self) -> None:
        """Forget all."""
        self.columns.clear()

    def read(self) -> dict[str, Column]:
        """All of it as numbers, in one copy from the device; nothing is pending afterwards."""
        columns = {name: self._readable(name, entries) for name, entries in self.columns.items() if entries}
        self.columns.clear()
        values = read_scalars(chain.from_iterable(values for _, values, _ in columns.values()))
        items = read_scalars(chain.from_iterable(items for _, _, items in columns.values()))
        read: dict[str, Column] = {}
        start = 0
        for name, (steps, *_) in columns.items():
            stop = start + len(steps)
            read[name] = list(steps), values[start:stop], items[start:stop]
            start = stop
        return read

    def _readable(self, name: str, entries: list[Logged]) -> tuple[Any, Any, Any]:
        """Steps, values and items of what can be recorded."""
        steps, values, items, _ = zip(*entries, strict=True)
        return steps, values, items


class DevicePending(Pending):
    """For a model on an accelerator: values stay there until a log boundary.

    A tensor may be changed in place after it was logged (`loss += penalty`, a running average, a parameter).
    Copying each would cost more than all the rest, so a name earns trust: its first value is copied, and
    where that tensor is still as it was when the name is logged again, with another tensor, later ones are
    kept as they are. What changes all the same is seen by its version counter: that value is lost, a warning
    says so, and from then on values of this name are copied.
    """

    def __init__(self) -> None:
        super().__init__()
        self._trusted: set[str] = set()
        self._watched: dict[str, tuple[Tensor, int]] = {}
        self._copied: set[str] = set()

    def add(self, name: str, step: int, value: Tensor, items: Tensor | float) -> None:
        """Log a tensor of one element, which is not waited for."""
        if value.requires_grad:
            value = value.detach()
        if name in self._trusted and not value.is_inference():
            self.columns[name].append((step, value, items, value._version))
        else:
            self._add_first(name, step, value, items)

    def clear(self) -> None:
        """Forget all, and which tensors were watched."""
        super().clear()
        self._watched.clear()

    def _add_first(self, name: str, step: int, value: Tensor, items: Tensor | float) -> None:
        check_scalar(name, value)
        plain = type(value) is Tensor and not value.is_inference()  # others have no storage, or no version
        if plain and name not in self._copied:
            watched = self._watched.get(name)
            if watched is None:
                self._watched[name] = value, value._version
            elif watched[0]._version == watched[1] and not _share_memory(watched[0], value):
                self._trusted.add(name)
                self.columns[name].append((step, value, items, value._version))
                return
            else:
                self._copied.add(name)
        self.columns[name].append((step, value.clone(), items, None))

    def _readable(self, name: str, entries: list[Logged]) -> tuple[Any, Any, Any]:
        """Without the tensors that were changed in place after they were logged."""
        steps, values, items, versions = zip(*entries, strict=True)
        if set(versions) == {None}:
            return steps, values, items
        if None not in versions and tuple(map(_VERSION, values)) == versions:
            return steps, values, items
        kept = [entry for entry in entries if entry[3] is None or _VERSION(entry[1]) == entry[3]]
        if len(kept) == len(entries):
            return steps, values, items
        self._trusted.discard(name)
        self._copied.add(name)
        warnings.warn(
            f"log: {len(entries) - len(kept)} values of {name!r} are lost, from step {entries[0][0]} to "
            f"{entries[-1][0]}: the tensor was changed in place after it was logged, as `loss += ...` does. "
            f"From now on {name!r} is copied",
            stacklevel=2,
        )
        if not kept:
            return (), (), ()
        steps, values, items, _ = zip(*kept, strict=True)
        return steps, values, items


def check_scalar(name: str, value: Tensor) -> None:
    """Raise a ValueError unless a tensor that is logged has one element, all of which is here."""
    if hasattr(value, "full_tensor"):
        raise ValueError(
            f"log: {name!r} is a {type(value).__name__}, of which each process has a part; log its "
            "full_tensor(), which all processes ask for"
        )
    if value.numel() != 1:
        raise ValueError(
            f"log: {name!r} has shape {tuple(value.shape)}; it must be a number or a tensor of one element"
        )


def _share_memory(one: Tensor, other: Tensor) -> bool:
    """Whether both are the same parameter, buffer or part of one; fused optimizers count no versions."""
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
