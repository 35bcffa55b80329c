"""The verbs of a step where several processes share it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from treadle.data import Batches
from treadle.engine import Engine
from treadle.log import MetricLog, read_counters
from treadle.metrics import Metric
from treadle.parallel.all_reduce import AllReduce
from treadle.parallel.batches import Filled, Present, Together, is_empty
from treadle.parallel.log import SharedLog, merged
from treadle.schedules import BoundSchedule


class ParallelEngine(Engine):
    """An engine over processes that share every step. All of them call every verb, in the same order."""

    strategy: AllReduce

    def setup(
        self,
        task: nn.Module,
        optimizers: Mapping[str, Optimizer],
        schedules: Mapping[str, BoundSchedule],
        zero_grad: Callable[[], None] | None = None,
    ) -> None:
        """See `Engine.setup`."""
        super().setup(task, optimizers, schedules, zero_grad)
        if zero_grad is not None and not self.strategy.keeps_gradients:
            self._zero_grad = self._keeping_once(zero_grad)

    def _keeping_once(self, zero_grad: Callable[[], None]) -> Callable[[], None]:
        """What a task keeps of its gradients is kept on another rank: it is added to the next ones once."""

        def clear() -> None:
            zero_grad()
            self.clear_gradients()

        return clear

    def split(self, window: list[Any]) -> list[Any]:
        """The micro-batches of a window, without the empty ones where the strategy allows that."""
        if self.strategy.skips_empty:
            window = [batch for batch in window if not is_empty(batch)]
        return super().split(window)

    def step(self, *optimizers: Optimizer) -> None:
        """Complete the gradients over all processes, then step; see `Engine.step`."""
        if any(len(optimizer.param_groups) != self._groups[optimizer] for optimizer in optimizers):
            self._learn_parameters()
        self.strategy.complete_gradients(p for o in optimizers for p in self._stepped[o])
        super().step(*optimizers)
        self.strategy.after_step()

    def new_log(self, mode: str) -> MetricLog:
        """A log in which the values of all processes meet."""
        return SharedLog(mode, self.gather_shares, self.new_pending())

    def read_counters(self, metrics: Mapping[str, Metric], mode: str) -> dict[str, float]:
        """The value of every metric over what all processes counted; each goes on with its own counts."""
        if not metrics:
            return {}
        states = self.gather_shares({name: metric.state_dict() for name, metric in metrics.items()})
        return read_counters(merged(metrics, states), mode)

    def gather(self, tree: Any) -> list[Any]:
        """Every process's tree of plain values and tensors, by rank."""
        return self.strategy.gather(tree)

    def gather_shares(self, tree: Any) -> list[Any]:
        """The trees of one process for each share of a batch; what the others have is the same."""
        return self.gather(tree)[:: self.strategy.world_size // self.strategy.data_size]

    def to_train(self, batches: Batches) -> Batches:
        """Batches that all processes run out of together."""
        return batches if batches.aligned else self._together(batches)

    def to_look(self, batches: Batches) -> Batches:
        """Batches that have items here; where all must take part in each, as many as any process has."""
        if self.strategy.skips_empty:
            return Present(batches)
        return batches if batches.aligned else self._together(batches)

    def _together(self, batches: Batches) -> Batches:
        lengths = self.gather(batches.length)
        known = [length for length in lengths if length is not None]
        length = max(known) if len(known) == len(lengths) else None

        def any_left(mine: bool) -> bool:
            return self.strategy.exchange([float(mine)])[0] > 0

        if self.strategy.skips_empty:
            return Together(batches, any_left, length)
        return Filled(batches, any_left, length, self.gather)
