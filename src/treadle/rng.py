"""The state of every random number generator that training draws from, as plain data."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor


def seed_all(seed: int, rank: int = 0) -> None:
    """Seed Python's, NumPy's and torch's generators (every device) from one number, each rank differently.

    Raises:
        ValueError: the seed is outside 0 .. 2**32 - 1, the range that NumPy's generator takes.
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed}; allowed are whole numbers from 0 to {2**32 - 1}")
    seed = (seed + rank) % 2**32
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def capture() -> dict[str, Any]:
    """Copy the state of every generator: {"python", "numpy", "torch", "devices"}.

    The values are tensors, numbers, lists and strings only, so that they can be saved without pickle.
    """
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": {"version": version, "words": torch.tensor(words, dtype=torch.int64), "gauss": gauss},
        "numpy": {
            "kind": kind,
            "keys": torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached": float(cached),
        },
        "torch": torch.get_rng_state(),
        "devices": _device_states(),
    }


def restore(state: dict[str, Any]) -> None:
    """Put every generator back to what `capture` saw."""
    python, numpy = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    np.random.set_state(
        (
            numpy["kind"],
            numpy["keys"].numpy().astype(np.uint32),
            numpy["position"],
            numpy["has_gauss"],
            numpy["cached"],
        )
    )
    torch.set_rng_state(state["torch"])
    _set_device_states(state["devices"])


def derived(state: dict[str, Any], number: int) -> dict[str, Any]:
    """A state like those of `capture` that follows from `state` and `number`, and is unlike either's."""
    with isolated():
        restore(state)
        seed_all(int(torch.randint(2**32, ())), number)
        return capture()


@contextmanager
def isolated() -> Iterator[None]:
    """Whatever the body draws, the generators stand afterwards where they stood before.

    Evaluation and prediction run inside it, so that looking at a model never changes its training. Nothing of
    this is saved, so the states stay in each library's own form, which is ten times as fast as `capture`.
    """
    python, numpy, torch_state = random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state()
    devices = _device_states()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(torch_state)
        _set_device_states(devices)


def _device_states() -> list[Tensor]:
    """The generators of the accelerators that are in use; nothing is initialised for it."""
    module = _accelerator()
    if module is None:
        return []
    if hasattr(module, "get_rng_state_all"):
        return list(module.get_rng_state_all())
    return [module.get_rng_state()]


def _set_device_states(states: list[Tensor]) -> None:
    module = _accelerator() if states else None
    if module is None:
        return
    if hasattr(module, "set_rng_state_all"):
        module.set_rng_state_all(states[: module.device_count()])
    else:
        module.set_rng_state(states[0])


def _accelerator() -> Any:
    """torch's module for the kind of accelerator that it was built for (torch.cuda, torch.mps, ...)."""
    device = torch.accelerator.current_accelerator()
    if device is None:
        return None
    module = torch.get_device_module(device)
    in_use = getattr(module, "is_initialized", module.is_available)
    return module if in_use() else None
