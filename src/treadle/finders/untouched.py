"""Doing something to a task and its data, and leaving them as they were."""

from __future__ import annotations

import copy
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from enum import Enum
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from treadle import rng

LOOKED_INTO = 10_000
"""Containers of more items (a data set's file names) are kept as they are; their items are not looked at."""

_PLAIN = (str, bytes, int, float, complex, type(None), type, ModuleType, Enum, torch.dtype, torch.device)
_FOREIGN = {
    "threading",
    "multiprocessing",
    "logging",
    "concurrent",
    "asyncio",
    "queue",
    "socket",
    "subprocess",
}


@contextmanager
def untouched(task: nn.Module, data: Any, *others: Any) -> Iterator[None]:
    """Whatever the body does to them, the task and its data are afterwards what they were before.

    Of the task that is every attribute of every object in it, tensors by value (copied to the host
    meanwhile): parameters, gradients, buffers, optimizers and their state, hooks, counters. Of the data
    (a DataLoader, its samplers and dataset, a Loader, ...) every attribute but not the contents of tensors
    and arrays, the generators, and what a dataset says of itself by `state_dict`. The global generators
    of Python, NumPy and torch too. Not seen: what functions keep in closures, open files, slots.

    Args:
        task: the task.
        data: what it is trained on.
        *others: more objects to keep like the task.

    Raises:
        ValueError: a parameter is lazy and not made yet: making it could not be undone.
    """
    kept = Kept()
    for root in (task, *others):
        kept.keep(root, contents=True)
    kept.keep(data, contents=False)
    try:
        with rng.isolated():
            yield
    finally:
        kept.put_back()


class Kept:
    """The state of whatever objects are reached from some others, and the way back to it."""

    def __init__(self) -> None:
        self._ways_back = ExitStack()  # last in, first out; one that fails stops no other
        self._seen: dict[int, Any] = {}  # with the objects, so that their ids stay theirs

    def keep(self, root: Any, contents: bool) -> None:
        """Remember everything reached from `root`; tensors and arrays by value only with `contents`."""
        waiting = [root]
        while waiting:
            thing = waiting.pop()
            if isinstance(thing, _PLAIN) or id(thing) in self._seen:
                continue
            self._seen[id(thing)] = thing
            waiting.extend(self._remember(thing, contents))

    def put_back(self) -> None:
        """Make everything what it was: what was reached last comes first."""
        self._ways_back.close()

    def _remember(self, thing: Any, contents: bool) -> Iterable[Any]:
        """Note the way back for one object; returns what to look at next."""
        if isinstance(thing, Tensor):
            return self._tensor(thing) if contents else ()
        if isinstance(thing, np.ndarray):
            if contents and thing.flags.writeable:
                array = thing.copy()
                self._ways_back.callback(thing.__setitem__, ..., array)
            return ()
        if isinstance(thing, (dict, list, set, deque)):
            return self._container(thing)
        if isinstance(thing, (tuple, frozenset)):
            return thing if len(thing) <= LOOKED_INTO else ()
        if self._generator(thing):
            return ()
        foreign = type(thing).__module__.split(".")[0] in _FOREIGN
        if foreign or _is_function(thing) or not isinstance(getattr(thing, "__dict__", None), dict):
            return ()
        if not contents and not isinstance(thing, (nn.Module, Optimizer, DataLoader)):
            self._own_state(thing)
        items = self._container(vars(thing))
        if isinstance(thing, DataLoader):
            self._workers(thing)
        return items

    def _container(self, thing: Any) -> Iterable[Any]:
        saved = copy.copy(thing) if not isinstance(thing, dict) else dict(thing)
        refill = thing.update if isinstance(thing, (dict, set)) else thing.extend

        def put_back() -> None:
            thing.clear()
            refill(saved)

        self._ways_back.callback(put_back)
        if len(saved) > LOOKED_INTO:
            return ()
        return saved.values() if isinstance(saved, dict) else list(saved)

    def _tensor(self, tensor: Tensor) -> Iterable[Any]:
        if is_lazy(tensor):
            raise ValueError(
                "the model has lazy parameters that are not made yet, and making them cannot be undone: send "
                "a batch through it first"
            )
        if tensor.is_inference():  # never written to outside of inference mode
            return ()
        saved, device, leaf = tensor.detach().to("cpu", copy=True), tensor.device, tensor.is_leaf
        gradient = tensor.grad if leaf else None
        requires_grad = tensor.requires_grad
        one_place = all(
            stride or size == 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True)
        )

        def put_back() -> None:
            if tensor.device != device or tensor.shape != saved.shape:
                tensor.data = saved.to(device)
            elif one_place:  # an expanded tensor is a view of one that is written back itself
                tensor.detach().copy_(saved)
            if leaf:
                tensor.requires_grad_(requires_grad)
                tensor.grad = gradient

        self._ways_back.callback(put_back)
        return () if gradient is None else (gradient,)

    def _generator(self, thing: Any) -> bool:
        """Whether it is a random number generator, remembered here."""
        if isinstance(thing, torch.Generator):
            self._restorable(thing.get_state(), thing.set_state)
        elif isinstance(thing, random.Random):
            self._restorable(thing.getstate(), thing.setstate)
        elif isinstance(thing, np.random.RandomState):
            self._restorable(thing.get_state(), thing.set_state)
        elif isinstance(thing, np.random.Generator):
            bits = thing.bit_generator
            self._restorable(copy.deepcopy(bits.state), lambda state: setattr(bits, "state", state))
        else:
            return False
        return True

    def _own_state(self, thing: Any) -> None:
        """What a stateful dataset or sampler says of itself, which may not be in its attributes."""
        load = getattr(thing, "load_state_dict", None)
        if callable(getattr(thing, "state_dict", None)) and callable(load):
            self._restorable(copy.deepcopy(thing.state_dict()), load)

    def _workers(self, loader: DataLoader[Any]) -> None:
        """Workers that persist keep their state to themselves: the body starts its own, ended afterwards."""
        own = vars(loader).get("_iterator")
        vars(loader)["_iterator"] = None

        def end() -> None:
            started = vars(loader).get("_iterator")
            if started is not None and started is not own:
                started._shutdown_workers()

        self._ways_back.callback(end)

    def _restorable(self, state: Any, restore: Callable[[Any], Any]) -> None:
        self._ways_back.callback(restore, state)


def _is_function(thing: Any) -> bool:
    return callable(thing) and hasattr(thing, "__name__")
