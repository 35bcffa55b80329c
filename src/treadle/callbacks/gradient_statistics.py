"""How large gradients are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from treadle.callbacks.gradients import gradients_by_layer
from treadle.events import Callback, Every
from treadle.state import State

STATISTICS = ("norm", "mean", "std", "min", "max")


class GradientStatistics(Callback):
    """Log norm, mean, standard deviation, minimum and maximum of the gradients every so many steps.

    Gradients are those of the whole step, unscaled and not yet clipped. Over all parameters the series are
    "gradient/norm", ..., and with `layers` also "gradient/<layer>/norm", ... for each module that holds
    parameters. Values stay on the device until the next log boundary.

    Args:
        every: how often, in steps.
        layers: whether each layer is logged too.
        statistics: which of "norm" (2-norm), "mean", "std" (of all elements, uncorrected), "min", "max".

    Raises:
        ValueError: `every` has no steps, or a statistic is unknown.
    """

    def __init__(
        self,
        every: Every = Every(steps=50),  # noqa: B008 - read, never changed
        layers: bool = False,
        statistics: Sequence[str] = STATISTICS,
    ) -> None:
        self.every = in_steps(every, "GradientStatistics")
        unknown = [name for name in statistics if name not in STATISTICS]
        if isinstance(statistics, str) or unknown or not statistics:
            raise ValueError(
                f"GradientStatistics: statistics is {statistics!r}; give some of {', '.join(STATISTICS)}"
            )
        self.layers = layers
        self.statistics = tuple(statistics)

    def on_before_optimizer_step(self, state: State) -> None:
        """Compute and log them where they are due."""
        if not self.every.at_step(state.current_step):
            return
        by_layer = gradients_by_layer(state.task)
        for layer, gradients in by_layer.items() if self.layers else ():
            self._log(state, f"gradient/{layer}", gradients)
        if by_layer:
            self._log(state, "gradient", [g for gradients in by_layer.values() for g in gradients])

    def _log(self, state: State, prefix: str, gradients: list[Tensor]) -> None:
        values = statistics_of(gradients)
        for name in self.statistics:
            state.log(f"{prefix}/{name}", values[name], items=1.0)


def in_steps(every: Every, where: str) -> Every:
    """`every` as it is, if it counts steps and nothing else.

    Raises:
        ValueError: it does not.
    """
    if not isinstance(every, Every) or every.steps is None or every.epochs or every.seconds:
        raise ValueError(f"{where}: every is {every!r}; give treadle.Every(steps=...)")
    return every


def statistics_of(tensors: list[Tensor]) -> dict[str, Tensor]:
    """Norm, mean, std, min and max over the elements of all tensors together: scalars on their device."""
    tensors = [tensor.float() for tensor in tensors if tensor.numel()] or [torch.zeros(1)]
    count = sum(tensor.numel() for tensor in tensors)
    norm = torch.stack(torch._foreach_norm(tensors)).norm()
    mean = torch.stack([tensor.sum() for tensor in tensors]).sum() / count
    # Around the mean rather than from the sum of squares, which loses small deviations.
    squares = torch.stack([(tensor - mean).square().sum() for tensor in tensors]).sum()
    return {
        "norm": norm,
        "mean": mean,
        "std": (squares / count).sqrt(),
        "min": torch.stack([tensor.min() for tensor in tensors]).min(),
        "max": torch.stack([tensor.max() for tensor in tensors]).max(),
    }
