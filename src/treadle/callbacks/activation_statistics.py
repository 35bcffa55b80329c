"""What layers put out, seen through forward hooks."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from treadle.callbacks.gradient_statistics import in_steps
from treadle.data.batch import leaves
from treadle.events import Callback, Every
from treadle.state import State

Measured = tuple[int, Tensor, Tensor, Tensor]
"""How many elements, their mean, the sum of squared deviations from it, how many are dead."""


class ActivationStatistics(Callback):
    """Log mean, standard deviation and dead fraction of chosen layers' outputs every so many steps.

    The series are "activation/<layer>/mean", ".../std" and ".../dead", over all elements of all
    micro-batches of the step. Forward hooks are on the layers in the steps that count and at no other
    time; values stay on the device until the next log boundary.

    Args:
        layers: patterns of module names as in `task.named_modules()`, such as "model.*.relu"; by default
            every module without children.
        every: how often, in steps.
        dead_below: an element whose magnitude is at most this is dead.

    Raises:
        ValueError: `every` has no steps, `dead_below` is negative; when a fit starts: a pattern names no
            module, and the text lists those there are; after a step: none of the layers was called, as in
            a compiled model, whose insides call no hooks.
    """

    def __init__(
        self,
        layers: Sequence[str] | None = None,
        every: Every = Every(steps=50),  # noqa: B008 - read, never changed
        dead_below: float = 1e-6,
    ) -> None:
        if isinstance(layers, str) or (layers is not None and not layers):
            raise ValueError(
                f"ActivationStatistics: layers is {layers!r}; give a list of patterns, or None for all"
            )
        if not dead_below >= 0:
            raise ValueError(f"ActivationStatistics: dead_below is {dead_below!r}; it must not be negative")
        self.layers = None if layers is None else list(layers)
        self.every = in_steps(every, "ActivationStatistics")
        self.dead_below = dead_below
        self._chosen: dict[str, nn.Module] = {}
        self._handles: list[RemovableHandle] = []
        self._sums: dict[str, Measured] = {}

    def on_fit_start(self, state: State) -> None:
        """Find the layers."""
        self._chosen = self._find(state.task)

    def on_step_start(self, state: State) -> None:
        """Put hooks on the layers where the step counts."""
        self._remove()  # a cancelled step has left its own
        if self.every.at_step(state.current_step):
            self._sums = {}
            self._handles = [m.register_forward_hook(self._hook(n)) for n, m in self._chosen.items()]

    def on_eval_start(self, state: State) -> None:
        """What an evaluation puts out does not count."""
        self._remove()

    def on_step_end(self, state: State) -> None:
        """Log what was seen."""
        self._remove()
        if not self.every.at_step(state.current_step):
            return
        if not self._sums:
            raise ValueError(
                f"ActivationStatistics: none of the layers {', '.join(self._chosen)} was called in step "
                f"{state.current_step}; hooks are not called inside compiled modules"
            )
        for layer, (count, mean, squares, dead) in self._sums.items():
            state.log(f"activation/{layer}/mean", mean, items=1.0)
            state.log(f"activation/{layer}/std", (squares / count).sqrt(), items=1.0)
            state.log(f"activation/{layer}/dead", dead / count, items=1.0)

    def on_cleanup(self, state: State) -> None:
        """Take the hooks off, however the fit ended."""
        self._remove()
        self._chosen, self._sums = {}, {}

    def _find(self, task: nn.Module) -> dict[str, nn.Module]:
        modules = {name: module for name, module in task.named_modules() if name}
        if self.layers is None:
            return {name: module for name, module in modules.items() if not any(module.children())}
        chosen = {n: m for n, m in modules.items() if any(fnmatchcase(n, pattern) for pattern in self.layers)}
        for pattern in self.layers:
            if not any(fnmatchcase(name, pattern) for name in modules):
                raise ValueError(
                    f"ActivationStatistics: no module is named {pattern!r}. The task has {', '.join(modules)}"
                )
        return chosen

    def _hook(self, layer: str) -> Any:
        @torch.no_grad()
        def see(module: nn.Module, inputs: Any, output: Any) -> None:
            for tensor in leaves(output):
                if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.numel():
                    seen = self._measure(tensor.detach().float())
                    before = self._sums.get(layer)
                    self._sums[layer] = seen if before is None else _together(before, seen)

        return see

    def _measure(self, values: Tensor) -> Measured:
        mean = values.mean()
        dead = (values.abs() <= self.dead_below).sum()
        return values.numel(), mean, (values - mean).square().sum(), dead

    def _remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []


def _together(one: Measured, other: Measured) -> Measured:
    """Two samples as one (Chan et al. 1979), without the difference of large squares that loses digits."""
    count = one[0] + other[0]
    difference = other[1] - one[1]
    mean = one[1] + difference * (other[0] / count)
    squares = one[2] + other[2] + difference.square() * (one[0] * other[0] / count)
    return count, mean, squares, one[3] + other[3]
