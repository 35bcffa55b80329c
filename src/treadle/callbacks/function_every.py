"""A plain function every so often."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from treadle.events import Callback, Every
from treadle.state import State


class FunctionEvery(Callback):
    """Call a function of the state every so many epochs or steps.

    ``FunctionEvery(show, Every(epochs=3))`` calls it after epochs 3, 6, 9, ...; with `skip_first=False`
    after epoch 1 too, and with `also_last` after the last one, wherever the run ends.

    Args:
        function: gets the state.
        every: how often.
        skip_first: whether the first epoch (or step) is left out unless it is due by itself.
        also_last: whether the end of the run always counts. A run that is cancelled or fails has none.

    Raises:
        TypeError: `function` cannot be called, or `every` is no `Every`.
    """

    def __init__(
        self,
        function: Callable[[State], Any],
        every: Every,
        skip_first: bool = True,
        also_last: bool = False,
    ) -> None:
        if not callable(function):
            raise TypeError(f"FunctionEvery: function is {function!r}; give a function of the state")
        if not isinstance(every, Every):
            raise TypeError(f"FunctionEvery: every is {every!r}; give treadle.Every(...)")
        self.every = every
        self.skip_first = skip_first
        self.also_last = also_last
        self._function = function
        self._step = -1

    @property
    def name(self) -> str:
        """The function's own name and how often it is called."""
        own = getattr(self._function, "__qualname__", type(self._function).__qualname__)
        return f"FunctionEvery({own}, {self.every!r})"

    def state_dict(self) -> dict[str, Any]:
        """The step of the last call, so that none is made twice."""
        return {"step": self._step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self._step = int(state["step"])

    def on_fit_start(self, state: State) -> None:
        """A new run has called nothing."""
        if state.progress.step == 0:
            self._step = -1

    def on_step_end(self, state: State) -> None:
        """Call it where it is due by steps or seconds."""
        every, step = self.every, state.progress.step
        by_steps = every.epochs is None
        due = every.at_step(step)
        if due or (by_steps and step == 1 and not self.skip_first):
            self._call(state)
        # Known here already, so that a checkpoint of this step holds that it was called.
        last = step in (state.max_steps, state.total_steps) or state.stop_reason is not None
        if self.also_last and by_steps and last:
            self._call(state)

    def on_epoch_end(self, state: State) -> None:
        """Call it where it is due by epochs, and after an epoch that is known to be the last."""
        epoch = state.progress.epoch
        if self.every.epochs is not None and state.progress.batch == 0:
            due = epoch % self.every.epochs == 0
            if due or (epoch == 1 and not self.skip_first):
                self._call(state)
        last = (
            state.stop_reason is not None
            or epoch == state.max_epochs
            or state.progress.step == state.max_steps
        )
        if self.also_last and last:
            self._call(state)

    def on_fit_end(self, state: State) -> None:
        """The last time, where the end was not known before."""
        if self.also_last:
            self._call(state)

    def _call(self, state: State) -> None:
        if state.progress.step != self._step:
            self._step = state.progress.step
            self._function(state)
