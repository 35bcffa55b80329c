"""The weights of the best evaluation at the end of a fit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from treadle.callbacks.monitor import Monitor, check_mode, improves
from treadle.state import State
from treadle.strategy import Strategy


class BestWeights(Monitor):
    """Leave the task with the weights that had the best value of a result; goes with `EarlyStopping`.

    They are those that were evaluated: with a `WeightAveraging`, the averages. A copy lies on the device (two
    of them during an evaluation) and in every checkpoint beside the weights as trained, which the run goes on
    with when it is resumed: so that is exact, and the best may still be one from before. A run that is
    interrupted keeps its weights as they are.

    Args:
        monitor: the full name of a result: "val/loss" counts evaluations, "train/loss" epochs.
        mode: "min" or "max": which way it is better.

    Attributes:
        best: the best value so far; None before the first. NaN is never better.
        best_step: the optimizer step it was found at.

    Raises:
        ValueError: `mode` is neither; when a fit starts: a checkpoint is of another task.
    """

    # After averages are put in place (-500), for an evaluation as for good, and before checkpoints.
    order = 500.0

    def __init__(self, monitor: str = "val/loss", mode: str = "min") -> None:
        super().__init__(monitor)
        self.mode = check_mode(type(self).__name__, mode)
        self._strategy = Strategy(torch.device("cpu"))
        self._live: dict[str, Tensor] = {}
        self._ended = False
        self.reset()

    def reset(self) -> None:
        """A run begins anew."""
        super().reset()
        self.best: float | None = None
        self.best_step = -1
        self._weights: dict[str, Tensor] = {}
        self._evaluated_now: dict[str, Tensor] = {}

    def on_fit_start(self, state: State) -> None:
        """Find the weights, and those that an earlier part of the run has kept."""
        super().on_fit_start(state)
        self._ended = False
        self._strategy = state.engine.strategy
        self._live = {**dict(state.task.named_parameters()), **dict(state.task.named_buffers())}
        self._place()

    def on_eval_start(self, state: State) -> None:
        """Copy what is evaluated; when that is over, averages are out of their place again."""
        if self._evaluated and state.mode == self._mode and state.run is self._run:
            self._evaluated_now = self._copies()

    def watch(self, value: float, state: State) -> None:
        """Keep the weights of a value that is better than all before."""
        if improves(value, self.best, self.mode):
            self.best, self.best_step = value, state.progress.step
            self._weights = self._evaluated_now or self._copies()
        self._evaluated_now = {}

    def state_dict(self) -> dict[str, Any]:
        """The best value, its step and its weights."""
        weights = {name: self._strategy.tensor_to_save(value) for name, value in self._weights.items()}
        return {**super().state_dict(), "best": self.best, "best_step": self.best_step, "weights": weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned; it is moved to the device when the fit starts."""
        super().load_state_dict(state)
        self.best, self.best_step = state["best"], int(state["best_step"])
        self._weights = dict(state["weights"])
        if self._live:
            self._place()

    def on_fit_end(self, state: State) -> None:
        """The fit is over, unless it is to go on later."""
        self._ended = not state.interrupted

    @torch.no_grad()
    def on_cleanup(self, state: State) -> None:
        """Everything is saved: put the best weights in."""
        super().on_cleanup(state)
        for name, value in self._weights.items() if self._ended else ():
            self._live[name].copy_(value)
        self._live, self._evaluated_now = {}, {}

    def _copies(self) -> dict[str, Tensor]:
        return {name: live.detach().clone() for name, live in self._live.items()}

    def _place(self) -> None:
        if self._weights and self._weights.keys() != self._live.keys():
            other = sorted(self._weights.keys() ^ self._live.keys())
            raise ValueError(f"{self.name}: the checkpoint's weights are of another task: {other}")
        like = self._strategy.tensor_like
        self._weights = {name: like(value, self._live[name]).clone() for name, value in self._weights.items()}
