"""What the search for a learning rate found."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from treadle.optional import optional

WIDTH = 50
"""Characters of the longest bar of the picture in text."""


@dataclass(frozen=True)
class Finding:
    """The loss at every learning rate that was tried.

    Attributes:
        rates: the learning rate of each step, rising.
        losses: the loss of each step, before it was taken.
        smoothed: the losses that were judged by: as they are, or their moving averages.
        reason: why the search ended.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    reason: str

    @property
    def lowest(self) -> float:
        """The rate with the lowest loss: from about there on training diverges."""
        return self.rates[int(np.nanargmin(self._judged()))]

    @property
    def steepest(self) -> float:
        """The rate at which the loss falls fastest over the logarithm of the rate, before the lowest."""
        stop = int(np.nanargmin(self._judged())) + 1
        if stop < 2:
            return self.rates[0]
        slopes = np.gradient(self._judged()[:stop], np.log(self.rates[:stop]))
        return self.rates[int(np.nanargmin(slopes))]

    @property
    def suggestion(self) -> float:
        """A tenth of the rate with the lowest loss (Smith 2017, as fastai puts it)."""
        return self.lowest / 10

    def plot(self) -> Any:
        """A matplotlib figure: loss over the learning rate on a logarithmic axis, with the suggestion.

        Raises:
            ImportError: matplotlib is not installed.
        """
        purpose = "plots (print(finding) draws it in text)"
        figure = optional("matplotlib.figure", purpose, "plots").Figure(layout="constrained")
        axes = figure.add_subplot()
        axes.plot(self.rates, self.losses, color="tab:blue", alpha=0.4 if self._is_smoothed() else 1.0)
        if self._is_smoothed():
            axes.plot(self.rates, self.smoothed, color="tab:blue")
        axes.axvline(self.suggestion, color="tab:orange", label=f"suggestion {self.suggestion:.3g}")
        axes.set(xscale="log", xlabel="learning rate", ylabel="loss")
        axes.legend()
        return figure

    def __str__(self) -> str:
        """The same picture in text, a line for each rate."""
        finite = [loss for loss in self.smoothed if math.isfinite(loss)]
        low, high = min(finite), max(finite)
        nearest = min(self.rates, key=lambda rate: abs(math.log(rate / self.suggestion)))
        lines = [f"learning rate: {self.suggestion:.3g} suggested ({self.reason})"]
        for rate, loss in zip(self.rates, self.smoothed, strict=True):
            filled = (loss - low) / (high - low) if high > low and math.isfinite(loss) else 0.0
            mark = " <- suggestion" if rate == nearest else ""
            lines.append(f"{rate:9.3g} {loss:10.4g} {'=' * (1 + round(filled * (WIDTH - 1)))}{mark}")
        return "\n".join(lines)

    def _judged(self) -> Any:
        values = np.asarray(self.smoothed, dtype=np.float64)
        return np.where(np.isfinite(values), values, np.nan)

    def _is_smoothed(self) -> bool:
        return self.smoothed != self.losses
