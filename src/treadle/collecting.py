"""Evaluation with everything kept: outputs, predictions, targets, metadata."""

from __future__ import annotations

import operator
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from treadle.data import Batches
from treadle.engine import Engine
from treadle.events import Callback
from treadle.output_blocks import outputs_of
from treadle.parallel import gathering
from treadle.state import State
from treadle.task import Task


@dataclass
class Results:
    """The full result of an evaluation; all tensors on the CPU, a row for each sample in data order.

    Attributes:
        values: {"test/loss": ..., "test/accuracy": ...}: what `Trainer.evaluate` returns.
        outputs: what the model returned (scores), a tensor or a tree.
        predictions: what `Task.decide` makes of them (labels, values).
        targets: the true ones, None where the data have none.
        metadata: what `Task.metadata` says of the samples, by name.
        seconds: how long the evaluation took.
    """

    values: dict[str, float]
    outputs: Any
    predictions: Any
    targets: Any = None
    metadata: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


class Collector(Callback):
    """Keeps what an evaluation sees, over all processes.

    Args:
        task: what is evaluated.
    """

    def __init__(self, task: Task) -> None:
        self._task = task

    def begin(self, engine: Engine, batches: Batches) -> None:
        """An evaluation of these batches comes."""
        self._sinks = [outputs_of(self._task, batches, engine) for _ in range(3)]
        self._first: Any = None
        # All at the end: an evaluation has meetings of its own, and some have fewer batches than others.
        self._gathering = gathering(engine, self._take, batches, every=sys.maxsize)

    def on_eval_start(self, state: State) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def on_eval_batch_end(self, state: State) -> None:
        """Keep one batch."""
        _, targets = self._task.prepare_batch(state.batch)
        self._gathering.add((state.output, targets, dict(self._task.metadata(state.batch))))

    def on_eval_end(self, state: State) -> None:
        """Stop the clock."""
        self._seconds = time.perf_counter() - self._began

    def results(self, values: dict[str, float]) -> Results:
        """Everything, in data order. All processes ask for it."""
        self._gathering.finish()
        if self._first is None:
            raise ValueError("results: no batch of these data was evaluated, so there is nothing to join")
        outputs, targets, metadata = (
            sink.result() if given is not None else None
            for sink, given in zip(self._sinks, self._first, strict=True)
        )
        return Results(
            values=values,
            outputs=outputs,
            predictions=self._task.decide(outputs, targets),
            targets=targets,
            metadata=metadata or {},
            seconds=self._seconds,
        )

    def _take(self, parts: tuple[Any, Any, Any]) -> None:
        if self._first is None:
            self._first = (parts[0], parts[1], parts[2] or None)
        for sink, part, given in zip(self._sinks, parts, self._first, strict=True):
            if given is not None:
                sink.add(part)


class Cache:
    """The last few results, each for certain objects (task, data, metrics) and one state of the weights."""

    def __init__(self, size: int = 4) -> None:
        self._entries: deque[tuple[Sequence[Any], Any, Results]] = deque(maxlen=size)

    def get(self, objects: Sequence[Any], key: Any) -> Results | None:
        """The newest result for these very objects under this key."""
        for held, known, results in list(self._entries)[::-1]:
            if known == key and len(held) == len(objects) and all(map(operator.is_, held, objects)):
                return results
        return None

    def put(self, objects: Sequence[Any], key: Any, results: Results) -> None:
        """Remember a result, and forget the oldest beyond the size."""
        self._entries.append((objects, key, results))
