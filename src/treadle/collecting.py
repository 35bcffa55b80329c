"""Evaluation with everything kept: outputs, predictions, targets, metadata."""

from __future__ import annotations

import operator
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from treadle.data import move
from treadle.events import Callback
from treadle.state import State
from treadle.task import Task

CPU = torch.device("cpu")


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
    """Keeps what an evaluation sees."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._outputs: list[Any] = []
        self._targets: list[Any] = []
        self._metadata: list[Any] = []

    def on_eval_start(self, state: State) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def on_eval_batch_end(self, state: State) -> None:
        """Bring one batch to the CPU."""
        _, targets = self._task.prepare_batch(state.batch)
        self._outputs.append(move(state.output, CPU))  # waits for the device
        self._targets.append(move(targets, CPU))
        self._metadata.append(move(dict(self._task.metadata(state.batch)), CPU))

    def on_eval_end(self, state: State) -> None:
        """Stop the clock."""
        self._seconds = time.perf_counter() - self._began

    def join(self, in_order: Callable[[list[Any]], list[Any]]) -> None:
        """Take in what other processes saw; `in_order` makes one list of all processes' lists."""
        self._outputs = in_order(self._outputs)
        self._targets = in_order(self._targets)
        self._metadata = in_order(self._metadata)

    def results(self, values: dict[str, float]) -> Results:
        """Everything joined, in the order it came."""
        outputs = self._task.join(self._outputs)
        targets = None if self._targets[0] is None else self._task.join(self._targets)
        return Results(
            values=values,
            outputs=outputs,
            predictions=self._task.decide(outputs, targets),
            targets=targets,
            metadata=self._task.join(self._metadata) if self._metadata[0] else {},
            seconds=self._seconds,
        )


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
