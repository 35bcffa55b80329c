"""How the sizes of gradients are distributed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from treadle.callbacks.gradient_statistics import in_steps
from treadle.callbacks.gradients import gradients_by_layer
from treadle.events import Callback, Every
from treadle.state import State

LOWEST, HIGHEST = -40, 10
KIND = "gradient_distribution"


class GradientDistribution(Callback):
    """Record a histogram of the gradients' magnitudes for each layer every so many steps.

    Bins are powers of two, so they need no range to be read from the device first and compare between
    steps: bin number e counts elements with 2**(e-1) <= |g| < 2**e. The lowest bin has zeros and all
    that is smaller, the highest all that is larger, infinite or NaN. Histograms stay on the device until
    the next log boundary and become events of the kind "gradient_distribution" with the details
    `exponents` (the bins' e) and `counts` (a list for each layer).

    Args:
        every: how often, in steps.

    Raises:
        ValueError: `every` has no steps.
    """

    def __init__(self, every: Every = Every(steps=500)) -> None:  # noqa: B008 - read, never changed
        self.every = in_steps(every, "GradientDistribution")
        self._pending: list[tuple[int, list[str], Tensor]] = []

    def state_dict(self) -> dict[str, Any]:
        """The histograms that are not recorded yet."""
        return {"pending": [list(one) for one in self._pending]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self._pending = [(int(step), list(layers), counts) for step, layers, counts in state["pending"]]

    def on_fit_start(self, state: State) -> None:
        """A new run has nothing pending."""
        if state.progress.step == 0:
            self._pending.clear()

    def on_before_optimizer_step(self, state: State) -> None:
        """Count where it is due."""
        if self.every.at_step(state.current_step):
            layers = gradients_by_layer(state.task)
            if layers:
                counts = torch.stack([histogram(gradients) for gradients in layers.values()])
                self._pending.append((state.current_step, list(layers), counts))

    def on_log(self, state: State) -> None:
        """Record what is pending; the host has waited for the device already."""
        self._record(state)

    def on_epoch_end(self, state: State) -> None:
        """Record what is left, where the task logs nothing."""
        self._record(state)

    def on_fit_end(self, state: State) -> None:
        """Record what is left."""
        self._record(state)

    def _record(self, state: State) -> None:
        exponents = list(range(LOWEST, HIGHEST + 1))
        for step, layers, counts in self._pending:
            rows = counts.tolist()  # waits for the device, at a log boundary
            state.run.event(KIND, step, exponents=exponents, counts=dict(zip(layers, rows, strict=True)))
        self._pending.clear()


def histogram(tensors: list[Tensor]) -> Tensor:
    """Counts of the binary exponents of all elements, on their device: int64, [HIGHEST - LOWEST + 1]."""
    counts = torch.zeros(HIGHEST - LOWEST + 1, dtype=torch.int64, device=tensors[0].device)
    for tensor in tensors:
        values = tensor.flatten().float()
        exponents = torch.frexp(values).exponent.long().clamp(LOWEST, HIGHEST)
        exponents = torch.where(values == 0, LOWEST, exponents)
        exponents = torch.where(values.isfinite(), exponents, HIGHEST)
        counts.scatter_add_(0, exponents - LOWEST, torch.ones_like(exponents))
    return counts
