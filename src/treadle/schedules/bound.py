"""Schedulers at work on their optimizers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any


class BoundSchedule:
    """A scheduler bound to its optimizer, ticking on one clock.

    Attributes:
        settings: what the record says of it, as plain data.
    """

    def __init__(self, scheduler: Any, every: str) -> None:
        self.scheduler = scheduler
        self.every = every
        self.settings: dict[str, Any] = {}
        # Torch warns where a schedule ticks before the first step. Ours never does; but a loss scaler may
        # have skipped that step.
        scheduler.optimizer._opt_called = True

    def step(self, results: Mapping[str, float]) -> None:
        """Tick once."""
        self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """The scheduler's own state."""
        return dict(self.scheduler.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the state back, in the container types that the scheduler itself uses."""
        self.scheduler.load_state_dict(_alike(state, self.scheduler.state_dict()))


class PlateauSchedule(BoundSchedule):
    """A `ReduceLROnPlateau`, which needs the value it watches."""

    def __init__(self, scheduler: Any, every: str, monitor: str) -> None:
        if every != "epoch":
            raise ValueError("Schedule: ReduceLROnPlateau ticks after evaluations; give every='epoch'")
        super().__init__(scheduler, every)
        self.monitor = monitor

    def check(self, has_validation: bool, after_epochs: bool) -> None:
        """Say before training that the value it watches will never come.

        Args:
            has_validation: whether there are validation data to evaluate.
            after_epochs: whether they are evaluated at the ends of epochs.

        Raises:
            ValueError: it watches a validation result, and there is none after an epoch.
        """
        if not self.monitor.startswith("val/"):
            return
        if not has_validation:
            raise ValueError(
                f"ReduceLROnPlateau watches {self.monitor!r}, and there are no validation data to evaluate: "
                "give some, or Schedule(..., monitor='train/loss')"
            )
        if not after_epochs:
            raise ValueError(
                f"ReduceLROnPlateau watches {self.monitor!r} after epochs, and eval_every names steps only: "
                "give Trainer(eval_every=Every(steps=..., epochs=1)), or Schedule(..., monitor='train/loss')"
            )

    def step(self, results: Mapping[str, float]) -> None:
        """Tick with the epoch's value of the watched result; an epoch that was not evaluated does not count.

        Raises:
            ValueError: the epoch's results have no such name; the text lists those they have.
        """
        mode = self.monitor.partition("/")[0]
        if self.monitor in results:
            self.scheduler.step(results[self.monitor])
        elif any(name.startswith(f"{mode}/") for name in results):
            known = ", ".join(sorted(results))
            raise ValueError(f"ReduceLROnPlateau watches {self.monitor!r}; the epoch's results are {known}")


def _alike(saved: Any, present: Any) -> Any:
    """The saved state in the containers of the present one, also in schedulers made of several."""
    if isinstance(present, Counter):
        return Counter(saved)
    if isinstance(present, dict) and isinstance(saved, dict):
        return {key: _alike(value, present.get(key)) for key, value in saved.items()}
    if isinstance(present, list) and isinstance(saved, list) and len(saved) == len(present):
        return [_alike(*pair) for pair in zip(saved, present, strict=True)]
    return saved
