"""What to do when a loss is infinite or not a number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from treadle.events import Callback, CancelStep
from treadle.norms import total_norm
from treadle.precision import ScaledFloat16
from treadle.state import State

_HOOKS: dict[str, dict[str, str]] = {
    "raise": {"on_log": "_raise"},
    "stop": {"on_log": "_stop"},
    "skip": {
        "on_step_start": "_begin",
        "on_after_loss": "_note_loss",
        "on_before_optimizer_step": "_decide",
    },
}


class NonFinitePolicy(Callback):
    """Raise, stop or skip when a loss is infinite or NaN.

    "raise" and "stop" look at values as they come from the device at log boundaries, so they cost no
    waiting, and up to `log_every` steps may have gone by; no checkpoint is written in between with "raise".
    "skip" must know before the optimizer steps: it looks at the losses and the gradients of every step,
    **and waits for the device once a step**. What a skipped step logged is dropped, and the record has
    an event "step_skipped". In fp16 the loss scaler skips such steps itself; only the values are dropped.

    Args:
        policy: "raise" a FloatingPointError, "stop" the fit gracefully, or "skip" the step.
        names: which logged values are losses; by default all of training whose last word is or ends in
            "loss". Not for "skip", which looks at `state.loss`.
        most_skips: with "skip", how many steps in a row may be skipped before it raises after all.

    Attributes:
        skipped: how many steps were skipped.

    Raises:
        ValueError: the policy is unknown, or `most_skips` is below 1.
    """

    def __init__(
        self, policy: str = "raise", names: Sequence[str] | None = None, most_skips: int = 100
    ) -> None:
        if policy not in _HOOKS:
            raise ValueError(
                f"NonFinitePolicy: policy is {policy!r}; allowed are {', '.join(map(repr, _HOOKS))}"
            )
        if isinstance(names, str) or (names is not None and policy == "skip"):
            raise ValueError(
                f"NonFinitePolicy: names is {names!r}; give a list of full names, and none with 'skip'"
            )
        if isinstance(most_skips, bool) or not isinstance(most_skips, int) or most_skips < 1:
            raise ValueError(f"NonFinitePolicy: most_skips is {most_skips!r}; it must be at least 1")
        self.policy = policy
        self.names = None if names is None else frozenset(names)
        self.most_skips = most_skips
        self.skipped = 0
        self._in_a_row = 0
        self._loss: Tensor | None = None
        for hook, method in _HOOKS[policy].items():
            setattr(self, hook, getattr(self, method))

    def state_dict(self) -> dict[str, Any]:
        """How many steps were skipped."""
        return {"skipped": self.skipped, "in_a_row": self._in_a_row}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.skipped, self._in_a_row = int(state["skipped"]), int(state["in_a_row"])

    def on_fit_start(self, state: State) -> None:
        """A new run has skipped nothing."""
        if state.progress.step == 0:
            self.skipped = self._in_a_row = 0

    def _found(self, state: State) -> str | None:
        for name, step, value in state.points:
            if not math.isfinite(value) and self._is_loss(name):
                return f"{name} is {value} at step {step}"
        return None

    def _is_loss(self, name: str) -> bool:
        if self.names is not None:
            return name in self.names
        return name.endswith("loss")

    def _raise(self, state: State) -> None:
        found = self._found(state)
        if found is not None:
            raise FloatingPointError(f"{found} (NonFinitePolicy)")

    def _stop(self, state: State) -> None:
        found = self._found(state)
        if found is not None:
            state.request_stop(f"{found} (NonFinitePolicy)")

    def _begin(self, state: State) -> None:
        self._loss = None

    def _note_loss(self, state: State) -> None:
        assert state.loss is not None
        loss = state.loss.detach()
        # Times zero, a finite loss adds nothing and any other makes the sum NaN: no branch, no waiting.
        self._loss = loss * 0 if self._loss is None else self._loss + loss * 0

    def _decide(self, state: State) -> None:
        scaled = isinstance(state.engine.precision, ScaledFloat16)
        signs = [] if self._loss is None else [self._loss.float()]
        if not scaled:
            gradients = [p.grad for p in state.task.parameters() if p.grad is not None]
            signs += [total_norm(gradients)] if gradients else []
        # Waits for the device: the optimizer steps next, and what it does cannot be taken back.
        finite = not signs or bool(torch.stack([torch.isfinite(sign) for sign in signs]).all())
        # All ranks skip or none does, or they would wait for each other forever.
        if state.engine.strategy.reduce([float(not finite)])[0] == 0:
            self._in_a_row = 0
            return
        self.skipped += 1
        self._in_a_row += 1
        step = state.current_step
        if self._in_a_row > self.most_skips:
            raise FloatingPointError(
                f"the loss or its gradient is not finite at step {step} and the {self.most_skips} steps "
                "before it (NonFinitePolicy)"
            )
        state.values.drop_after(state.progress.step)
        state.run.event("step_skipped", step, reason="the loss or its gradient is not finite")
        if not scaled:
            raise CancelStep
