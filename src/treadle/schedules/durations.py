"""How long something lasts: in optimizer steps, in epochs, or as a fraction of the run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Horizon:
    """How long the run will be, as far as that is known before it starts.

    Attributes:
        steps: optimizer steps in all; None where the data have no length and only epochs are given.
        steps_per_epoch: optimizer steps an epoch; None where the data have no length.
        epochs: epochs in all; None where the run is given in steps.
    """

    steps: int | None = None
    steps_per_epoch: int | None = None
    epochs: float | None = None


@dataclass(frozen=True)
class Steps:
    """A number of optimizer steps.

    Raises:
        TypeError, ValueError: `count` is not a whole number from 0.
    """

    count: int

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, int):
            raise TypeError(f"Steps: count is {self.count!r}; it must be a whole number")
        if self.count < 0:
            raise ValueError(f"Steps: count is {self.count}; it must be at least 0")

    def steps(self, horizon: Horizon, what: str) -> int:
        """The same number, whatever the run."""
        return self.count


@dataclass(frozen=True)
class Epochs:
    """A number of epochs, which may be fractional; rounded to steps, at least one where it is not 0.

    Raises:
        ValueError: `count` is not a number from 0.
    """

    count: float

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not self.count >= 0:
            raise ValueError(f"Epochs: count is {self.count!r}; it must be a number from 0")

    def steps(self, horizon: Horizon, what: str) -> int:
        """How many optimizer steps that is.

        Args:
            horizon: what is known of the run.
            what: who asks, for the error.

        Raises:
            ValueError: the data have no length.
        """
        if horizon.steps_per_epoch is None:
            raise ValueError(
                f"{what} is given in epochs ({self.count:g}), and how many steps an epoch has is not known "
                "before training, since the training data have no length: give it in steps"
            )
        return _rounded(self.count * horizon.steps_per_epoch)


@dataclass(frozen=True)
class Fraction:
    """A fraction of the run's steps, 0 to 1; rounded to steps, at least one where it is not 0.

    Raises:
        ValueError: `of_run` is not between 0 and 1.
    """

    of_run: float

    def __post_init__(self) -> None:
        if isinstance(self.of_run, bool) or not 0 <= self.of_run <= 1:
            raise ValueError(
                f"Fraction: of_run is {self.of_run!r}; it must be from 0 to 1. Steps are given as an int or "
                "Steps(...), epochs as Epochs(...)"
            )

    def steps(self, horizon: Horizon, what: str) -> int:
        """How many optimizer steps that is.

        Raises:
            ValueError: the run's length is not known.
        """
        return _rounded(
            self.of_run * length_of(horizon, f"{what} is a fraction of the run ({self.of_run:g})")
        )


Duration = int | float | str | Steps | Epochs | Fraction
"""An int is `Steps`, a float a `Fraction` of the run, a text "500 steps", "2 epochs" or "10%"."""

_TEXT = re.compile(r"\s*([0-9.]+)\s*(steps?|epochs?|%)\s*")


def as_duration(value: Duration, what: str) -> Steps | Epochs | Fraction:
    """The value class of whatever form a duration is given in.

    Args:
        value: see `Duration`.
        what: whose it is, for the error.

    Raises:
        TypeError: it is no duration.
        ValueError: its number is out of range, or the text is none of these forms.
    """
    if isinstance(value, (Steps, Epochs, Fraction)):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError(
            f"{what} is {value!r}; allowed are steps as an int or Steps(...), a fraction of the run as a "
            "float from 0 to 1 or Fraction(...), Epochs(...), and texts such as '2 epochs' or '10%'"
        )
    try:
        if isinstance(value, str):
            return _parsed(value)
        return Steps(value) if isinstance(value, int) else Fraction(value)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None


def length_of(horizon: Horizon, what: str) -> int:
    """The run's length in optimizer steps.

    Raises:
        ValueError: it is not known before training; the text says what would make it known.
    """
    if horizon.steps is None:
        raise ValueError(
            f"{what}, and how many steps the run has is not known before training, since it is given in "
            "epochs and the training data have no length: give Trainer(max_steps=...), or the schedule's "
            "lengths in steps"
        )
    return horizon.steps


def limited(horizon: Horizon, total: Steps | Epochs | Fraction | None, what: str) -> Horizon:
    """The horizon of a schedule that is over after `total`, or with the run where that is None."""
    if total is None:
        return horizon
    return Horizon(total.steps(horizon, what), horizon.steps_per_epoch, horizon.epochs)


def _parsed(text: str) -> Steps | Epochs | Fraction:
    match = _TEXT.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no duration; allowed are texts such as '500 steps', '2 epochs', '10%'")
    number, unit = match.groups()
    if unit.startswith("step"):
        return Steps(int(number))
    return Epochs(float(number)) if unit.startswith("epoch") else Fraction(float(number) / 100)


def _rounded(steps: Any) -> int:
    return max(1, round(steps)) if steps else 0
