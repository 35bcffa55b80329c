"""Where outputs are kept: in memory, in files, and by way of blocks where the model is on an accelerator."""

from __future__ import annotations

from typing import Any

import torch

from treadle.data import Batches, concatenate, move
from treadle.engine import Engine
from treadle.outputs import (
    CPU,
    JoinedOutputs,
    Layout,
    Outputs,
    Sink,
    StoredOutputs,
    layout_of,
    named_leaves,
    rows_of,
)
from treadle.task import Task


class OutputBlocks:
    """Rows from an accelerator, many batches at a time: one wait for each block instead of each batch.

    Args:
        sink: gets the blocks, on the CPU, as if each were one batch.
        device: where the model is.
        rows: how many there will be in all; None where that is unknown.
        size: how many bytes a block has at least, if there are so many.
    """

    def __init__(self, sink: Sink, device: torch.device, rows: int | None = None, size: int = 2**25) -> None:
        self._sink, self._device, self._rows, self._size = sink, device, rows, size
        self._layout: Layout | None = None
        self._room = 0

    def add(self, output: Any) -> None:
        """Keep the rows of one batch; what has no rows goes on at once."""
        parts = list(named_leaves(output))
        layout, rows = layout_of(parts), rows_of(parts)
        if layout is None or not rows or layout != self._layout or rows > self._room:
            self._hand_on()
            if layout is None or not rows:
                self._sink.add(output)
                return
            self._begin(layout, parts, rows)
        self._block.add(output)
        self._room -= rows

    def result(self) -> Any:
        """All of it, in the order it came."""
        self._hand_on()
        return self._sink.result()

    def _begin(self, layout: Layout, parts: list[tuple[str, Any]], rows: int) -> None:
        bytes_of_row = sum(leaf.nbytes for _, leaf in parts if leaf is not None) / rows
        self._layout = layout
        room = int(self._size / max(bytes_of_row, 1))
        self._room = max(rows, room if self._rows is None else min(room, self._rows))
        self._block = StoredOutputs(concatenate, self._room, device=self._device)

    def _hand_on(self) -> None:
        if self._layout is not None:
            self._sink.add(move(self._block.result(), CPU))  # waits for the device
            self._layout, self._room = None, 0


def outputs_of(task: Task, batches: Batches, engine: Engine, files: Sink | None = None) -> Sink:
    """Where outputs for opened data go.

    Args:
        task: one that joins outputs itself gets them as a list.
        batches: what they are outputs for.
        engine: what the model runs on; outputs of several processes come from the CPU.
        files: where they are to end; None: in memory.
    """
    if type(task).join is not Task.join:
        return Outputs(task.join) if files is None else JoinedOutputs(task.join, files)
    if engine.device.type == "cpu" or engine.strategy.is_shared:
        return files or StoredOutputs(task.join, batches.num_samples, batches.length)
    return OutputBlocks(
        files or StoredOutputs(task.join, batches.num_samples), engine.device, batches.num_samples
    )
