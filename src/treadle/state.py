"""What the loop knows now."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from treadle import rng
from treadle.events import Every, Hooks
from treadle.log import MetricLog, Point, points_of
from treadle.media import bins_of, png_of
from treadle.metrics import Metric
from treadle.runs.media import Medium, of_histogram, of_picture, of_text


@dataclass
class Progress:
    """How far the run is: all counts of what is done. The part of `State` that a checkpoint holds.

    Attributes:
        step: optimizer steps turned (a cancelled one counts: its data are used up).
        epoch: training epochs finished.
        batch: loader batches used up in the epoch under way.
        samples: samples seen by this process since the beginning.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    samples: int = 0

    def state_dict(self) -> dict[str, int]:
        """The four counts by name."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Take back what `state_dict` returned."""
        for name in asdict(self):
            setattr(self, name, int(state[name]))


@dataclass(slots=True, eq=False)
class State:
    """What the loop knows now: the one argument of every hook.

    Attributes:
        task, engine, hooks, run: what is trained, how, what listens, and the record of it.
        progress: how far the run is.
        mode: "train", or the name of the evaluation under way ("val", "test"), or "predict".
        batch, output, loss: of the micro-batch under way, on the device. `loss` is a scalar.
        metrics: the accumulators of the present mode, by name.
        results: the latest values over an epoch by full name ("train/loss", "val/accuracy").
        row: the values of the epoch that ends, before they are recorded.
        times: seconds of the epoch that ends by what they went to; recorded with the row, in no checkpoint.
        points: what has just come from the device at a log boundary: (name, step, value).
        media: the text, picture or histogram that was just logged.
        latest: the latest value by full name.
        stop_reason: why the run ends; None while it goes on.
        finished: whether the run has all its epochs or steps.
        ended: whether the epoch under way has had its end: a run may stop, and go on later, in its middle.
        interrupted: whether somebody outside (a signal) asked for the end, to go on later.
        exception: what is about to be raised out of the fit.
        max_epochs, max_steps: where the run ends; one of them is a number in a fit.
        steps_per_epoch, total_steps: optimizer steps, None where the data have no length.
        eval_batches: batches of the evaluation under way, None where unknown.
        train_batches, evaluations: the opened data; those to evaluate on by name, "val" first.
        turn: turns a window of micro-batches into an optimizer step; `task.train_step`, as a rule.
        train_epoch: turns the data once; `loops.train_epoch`, as a rule.
        optimizers, schedules: by name.
        log_every: when values are read from the device.
        eval_steps, eval_epochs: when the run is evaluated, between steps and after epochs.
        seconds_looking: what the epoch under way has spent on evaluations.
        seconds_saving: what this fit has spent on checkpoints, as far as training waited for them.
        seed: what everything random in the run follows from.
        setup: what the run is made of that a resume compares, as plain data; see `treadle.setups`.
        is_main: whether this process is the one that prints and writes.
    """

    task: Any
    engine: Any
    hooks: Hooks
    run: Any = None
    progress: Progress = field(default_factory=Progress)
    mode: str = "train"
    batch: Any = None
    output: Any = None
    loss: Tensor | None = None
    metrics: dict[str, Metric] = field(default_factory=dict)
    results: dict[str, float] = field(default_factory=dict)
    row: dict[str, float] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    media: list[Medium] = field(default_factory=list)
    latest: dict[str, float] = field(default_factory=dict)
    stop_reason: str | None = None
    finished: bool = False
    interrupted: bool = False
    ended: bool = False
    exception: BaseException | None = None
    max_epochs: int | None = None
    max_steps: int | None = None
    steps_per_epoch: int | None = None
    total_steps: int | None = None
    accumulate: int = 1
    eval_batches: int | None = None
    train_batches: Any = None
    evaluations: dict[str, Any] = field(default_factory=dict)
    turn: Any = None
    train_epoch: Any = None
    optimizers: dict[str, Optimizer] = field(default_factory=dict)
    schedules: dict[str, Any] = field(default_factory=dict)
    log_every: Every = field(default_factory=lambda: Every(steps=50, seconds=1.0))
    eval_steps: Every | None = None
    eval_epochs: Every | None = field(default_factory=lambda: Every(epochs=1))
    seed: int = 0
    setup: dict[str, Any] = field(default_factory=dict)
    is_main: bool = True
    seconds_looking: float = 0.0
    seconds_saving: float = 0.0
    values: MetricLog = field(default_factory=lambda: MetricLog("train"))
    current_step: int = 0

    def log(self, name: str, value: Tensor | float, items: Tensor | float | None = None) -> None:
        """Log a scalar under `name` for the step under way; nothing waits for an accelerator here.

        Args:
            name: gets the mode in front ("loss" becomes "train/loss") unless it has a slash.
            value: a number, or a tensor of one element. One that is changed in place afterwards is recorded
                as it was; on an accelerator, where that cannot be any more, it is left out with a warning.
            items: what it weighs in the step's and the epoch's mean; default the items of this micro-batch.

        Raises:
            ValueError: a tensor of another number of elements.
        """
        pending = self.values.pending
        if items is None:
            items = self.engine.items
        elif isinstance(items, Tensor):
            items = items.detach().clone()
        if isinstance(value, Tensor):
            pending.add(name, self.current_step, value, items)
        else:
            pending.columns[name].append((self.current_step, value, items, None))

    def record(self, name: str, value: float) -> None:
        """Record a number for the step under way, outside of all averages (a rate, a fingerprint)."""
        self.values.record((name, self.current_step, value))

    def log_text(self, name: str, text: str) -> None:
        """Record a text for the step under way; `name` as for `log`."""
        self._log_medium(of_text(self._full(name), self.current_step, text))

    def log_picture(self, name: str, picture: Any) -> None:
        """Record a picture for the step under way; `name` as for `log`. It waits for the device.

        Args:
            name: gets the mode in front unless it has a slash.
            picture: (height, width), with 1, 3 or 4 channels last or first, of bytes or of floats from 0 to
                1; or a figure of matplotlib; or the bytes of a PNG file.

        Raises:
            TypeError, ValueError: it is nothing of these.
        """
        self._log_medium(of_picture(self._full(name), self.current_step, png_of(picture)))

    def log_histogram(self, name: str, values: Tensor, bins: int = 64) -> None:
        """Record how the finite ones of any number of values are spread. It waits for the device."""
        edges, counts = bins_of(values, bins)
        self._log_medium(of_histogram(self._full(name), self.current_step, edges, counts))

    def _full(self, name: str) -> str:
        return name if "/" in name else f"{self.mode}/{name}"

    def _log_medium(self, medium: Medium) -> None:
        if self.is_main:
            self.media = [medium]
            self.run.add_media(self.media)
            for hook in self.hooks.on_media:
                hook(self)

    def flush(self) -> None:
        """Read from the device what was logged since the last time, and hand it on: a log boundary."""
        curves = self.values.flush()
        if curves:
            self.latest.update({name: values[-1] for name, (_, values) in curves.items()})
            self.run.append_curves(curves)
            if self.hooks.on_log:
                self.points = points_of(curves)
                for hook in self.hooks.on_log:
                    hook(self)

    def epoch_results(self, complete: bool) -> dict[str, float]:
        """The training values and metrics of the epoch; a complete one is counted, and the next begins."""
        self.flush()
        results: dict[str, float] = self.values.means() | self.engine.read_counters(self.metrics, "train")
        self.results.update(results)
        self.latest.update(results)
        if complete:
            self.progress.epoch, self.progress.batch = self.progress.epoch + 1, 0
            self.values.reset()
            for metric in self.metrics.values():
                metric.reset()
        return results

    def learning_rates(self) -> dict[str, float]:
        """The learning rate of each optimizer's first parameter group, as of the next step."""
        several = len(self.optimizers) > 1
        return {
            f"learning_rate/{name}" if several else "learning_rate": float(optimizer.param_groups[0]["lr"])
            for name, optimizer in self.optimizers.items()
        }

    def turned(self, turn: Any) -> Any:
        """What turns a window into a step, with what this state has to do after it: nothing."""
        return turn

    def goes_on(self) -> bool:
        """Whether epochs and steps remain and nobody asked to stop, or a kill cut off the last one's end."""
        progress = self.progress
        if self.max_epochs is not None and progress.epoch >= self.max_epochs:
            self.finished = True
            self.request_stop(f"max_epochs={self.max_epochs} reached")
        if self.max_steps is not None and progress.step >= self.max_steps:
            self.finished = True
            self.request_stop(f"max_steps={self.max_steps} reached")
        return self.stop_reason is None or (progress.batch > 0 and not self.ended and not self.interrupted)

    def evaluates_after(self, epoch: int) -> bool:
        """Whether an evaluation is due at the end of the epoch of this number: always after the last."""
        if not self.evaluations or self.eval_epochs is None:
            return False
        stopped = self.stop_reason is not None and not self.interrupted
        last = stopped or self.max_epochs == epoch or self.max_steps == self.progress.step
        return last or self.eval_epochs.at_epoch(epoch)

    def request_stop(self, reason: str) -> None:
        """End the fit after this step, with the epoch's evaluation; the first reason given stands."""
        if self.stop_reason is None:
            self.stop_reason = reason

    def interrupt(self, reason: str) -> None:
        """Somebody outside (a signal) asks for the end, to go on later."""
        self.request_stop(reason)
        self.interrupted = True

    @contextmanager
    def looking(self, mode: str) -> Iterator[None]:
        """Look at the model without a trace: eval mode, no gradients, generators and training values kept."""
        training = [module for module in self.task.modules() if module.training]
        kept = (self.mode, self.values, self.metrics, self.batch, self.output, self.loss, self.engine.items)
        began = time.perf_counter()
        self.mode, self.values = mode, self.engine.new_log(mode)
        try:
            # no_grad rather than inference_mode: what a module caches in here must stay usable in training.
            with rng.isolated(), torch.no_grad():
                self.task.eval()
                yield
        finally:
            self.seconds_looking += time.perf_counter() - began
            for module in training:
                module.training = True  # not train(): a part that was frozen in eval mode stays so
            self.mode, self.values, self.metrics, self.batch, self.output, self.loss, self.engine.items = kept
