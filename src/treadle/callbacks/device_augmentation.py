"""Random changes to training batches, made on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from treadle.data.order import mix
from treadle.events import Callback
from treadle.state import State

_USE = 0x61756772  # keeps this use of the run's seed apart from others


class DeviceAugmentation(Callback):
    """Change each training batch on the device; evaluations see the data as they are.

    `function` may draw from torch's generators: they are seeded for it from (seed, rank, step, micro-batch)
    and put back afterwards, so a resumed run sees the same noise and the rest of training does not notice.
    The noise does depend on how a step is cut into micro-batches and ranks; where that matters, augment each
    sample in the `Loader` (`transform=`), which is seeded by the sample.

    Args:
        function: from a batch on the device to a batch of as many items; gradients are off.
        seed: of the noise; None takes the run's.

    Raises:
        TypeError: `function` cannot be called.
    """

    # Before others look at the batch.
    order = -100.0

    def __init__(self, function: Callable[[Any], Any], seed: int | None = None) -> None:
        if not callable(function):
            raise TypeError(f"DeviceAugmentation: function is {function!r}; give a function of a batch")
        self._function = function
        self._given = seed
        self._seed: int | None = None

    @property
    def name(self) -> str:
        """The class and the function's name, so that several can be at work."""
        own = getattr(self._function, "__qualname__", type(self._function).__qualname__)
        return f"DeviceAugmentation({own})"

    def state_dict(self) -> dict[str, Any]:
        """The seed of the noise."""
        return {"seed": self._seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self._seed = state["seed"]

    def on_fit_start(self, state: State) -> None:
        """Learn the seed."""
        if state.progress.step == 0 or self._seed is None:
            self._seed = state.seed if self._given is None else self._given

    @torch.no_grad()
    def on_batch_start(self, state: State) -> None:
        """Put the changed batch in place."""
        assert self._seed is not None
        strategy = state.engine.strategy
        seed = mix(_USE, self._seed, strategy.data_rank, state.current_step, state.engine.position)
        device: torch.device = strategy.device
        others = [] if device.type == "cpu" else [device]
        with torch.random.fork_rng(devices=others, device_type=device.type if others else "cuda"):
            torch.default_generator.manual_seed(seed)
            for other in others:
                with torch.get_device_module(other).device(other):
                    torch.get_device_module(other).manual_seed(seed)
            state.batch = self._function(state.batch)
