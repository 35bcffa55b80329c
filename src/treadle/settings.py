"""How runs are carried out: what a `Trainer` is given, checked once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, Self

import torch

from treadle.callbacks import Checkpoints, StepTimes, Summary, Trial, progress_bar
from treadle.clipping import Clip, GradientClip
from treadle.compiling import compiler_of
from treadle.described import attributes_of, described, name_of
from treadle.engine import Engine
from treadle.events import Callback, Every, FunctionCallback, Hook, Hooks, as_callbacks
from treadle.parallel import engine_of, place_of, strategy_of
from treadle.precision import Precision, precision_of
from treadle.report.callback import ReportWriter
from treadle.strategy import Strategy


class Settings:
    """The arguments of a `Trainer`, which explains them, as objects ready to use."""

    def __init__(
        self,
        max_epochs: int | None = None,
        max_steps: int | None = None,
        *,
        accumulate: int = 1,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        seed: int | None = None,
        device: str | torch.device = "auto",
        strategy: str | Strategy = "auto",
        precision: str | Precision = "fp32",
        microbatch_size: int | Literal["auto"] | None = None,
        compile: bool | Literal["model"] | dict[str, Any] = False,
        deterministic: bool = False,
        run_dir: str | Path | None = "runs/run",
        checkpoint: Checkpoints | bool | None = True,
        report: ReportWriter | bool | None = True,
        callbacks: Iterable[Callback] = (),
        progress: bool | int = True,
        trial: bool = False,
        log_every: int = 50,
        eval_every: Every | None = Every(epochs=1),  # noqa: B008 - read, never changed
    ) -> None:
        callbacks = as_callbacks(callbacks, "Trainer")
        self._arguments = {name: value for name, value in locals().items() if name != "self"}
        _check_number("max_epochs", max_epochs, at_least=0, optional=True)
        _check_number("max_steps", max_steps, at_least=0, optional=True)
        _check_number("accumulate", accumulate, at_least=1)
        if microbatch_size != "auto":
            _check_number("microbatch_size", microbatch_size, at_least=1, optional=True)
        _check_number("log_every", log_every, at_least=1)
        if not isinstance(progress, bool):
            _check_number("progress", progress, at_least=1)
        if not isinstance(trial, bool):
            raise TypeError(f"Trainer: trial is {trial!r}; give True, or callbacks=[Trial(batches)]")
        _check_number("seed", seed, at_least=0, optional=True)
        if eval_every is not None and not isinstance(eval_every, Every):
            raise TypeError(
                f"Trainer: eval_every is {eval_every!r}; give treadle.Every(...), or None for never"
            )
        self.max_epochs = max_epochs
        self.max_steps = max_steps
        self.accumulate = accumulate
        self.clip = (
            Clip() if clip_norm is None and clip_value is None else GradientClip(clip_norm, clip_value)
        )
        self.seed = seed
        self.device = _device(device)
        self.strategy = strategy_of(strategy, self.device)
        self.precision = precision_of(precision, self.device.type)
        self.microbatch_size = microbatch_size
        self.compile = compiler_of(compile)
        self.deterministic = deterministic
        self.run_dir = None if run_dir is None else Path(run_dir)
        self.checkpoint = Checkpoints() if checkpoint is True else checkpoint or None
        self.report = ReportWriter() if report is True else report or None
        self.callbacks: list[Callback] = list(callbacks)
        self.progress = progress
        self.trial = trial
        self.log_every = log_every
        self.eval_every = eval_every
        Hooks(self.callbacks)  # a typo is said here, not when training starts
        if self.checkpoint is not None and not isinstance(self.checkpoint, Checkpoints):
            raise TypeError(
                f"Trainer: checkpoint is {checkpoint!r}; give treadle.Checkpoints(...), True or None"
            )
        if self.report is not None and not isinstance(self.report, ReportWriter):
            raise TypeError(f"Trainer: report is {report!r}; give treadle.ReportWriter(...), True or None")

    def replace(self, **changes: Any) -> Self:
        """A trainer like this one, its subscribed functions included, with some arguments changed."""
        return type(self)(**{**self.arguments(), **changes})

    def arguments(self) -> dict[str, Any]:
        """What another trainer like this one is made from, its subscribed functions included."""
        return {**self._arguments, "callbacks": self.callbacks}

    def on(self, event: str, every: Every | None = None, order: float = 0.0) -> Callable[[Hook], Hook]:
        """Subscribe a plain function of the state to an event: ``@trainer.on("step_end", Every(steps=100))``.

        Raises:
            ValueError: there is no such event; the text lists them.
        """

        def subscribe(function: Hook) -> Hook:
            self.callbacks.append(FunctionCallback(event, function, every, order))
            return function

        FunctionCallback(event, lambda state: None, every, order)
        return subscribe

    def engine(self) -> Engine:
        """An engine for one run, or one look at the data."""
        size = None if self.microbatch_size == "auto" else self.microbatch_size
        return engine_of(self.strategy, self.precision, self.clip, size)

    def facts(self) -> dict[str, Any]:
        """What the record says of how the run is carried out, and a resume compares."""
        return {
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            "deterministic": self.deterministic,
            "precision": self.precision.name,
        }

    def described(self) -> dict[str, Any]:
        """The arguments as plain data, for the record; not where it is kept, nor what is shown."""
        counts = ("max_epochs", "max_steps", "accumulate", "log_every", "deterministic", "trial")
        others = ("clip_norm", "clip_value", "microbatch_size", "compile")
        checkpoint = None if self.checkpoint is None else attributes_of(self.checkpoint)
        return {
            **{name: getattr(self, name) for name in counts},
            **{name: described(self._arguments[name]) for name in others},
            "precision": self.precision.name,
            "strategy": name_of(self.strategy),
            "eval_every": None if self.eval_every is None else attributes_of(self.eval_every),
            "checkpoint": checkpoint,
        }

    def own_callbacks(self) -> list[Callback]:
        """What accompanies a fit besides the callbacks given."""
        own: list[Callback] = [Trial()] if self.trial else []
        if self.progress and self.strategy.is_main:
            own += [Summary(shapes=not self.compile), progress_bar(every=int(self.progress))]
        reports = self.report is not None and self.run_dir is not None
        if reports and not any(isinstance(one, StepTimes) for one in self.callbacks):
            own.append(StepTimes())
        return own + [callback for callback in (self.checkpoint, self.report) if callback is not None]


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        if accelerator is None:
            return torch.device("cpu")
        place = place_of()  # each process of a machine has a device of its own
        return accelerator if place.world_size == 1 else torch.device(accelerator.type, place.local_rank)
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f"Trainer: device is {device!r}; allowed are 'auto' and torch devices: {error}"
        ) from error


def _check_number(name: str, value: Any, at_least: int, optional: bool = False) -> None:
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(
            f"Trainer: {name} is {value!r}; it must be a whole number{' or None' if optional else ''}"
        )
    if value < at_least:
        raise ValueError(f"Trainer: {name} is {value}; it must be at least {at_least}")
