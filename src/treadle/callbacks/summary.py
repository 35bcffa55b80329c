"""The table of layers that is printed when training starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treadle.callbacks.layer_table import Calls, Row, parameter_table
from treadle.data import batch_items
from treadle.events import Callback

if TYPE_CHECKING:
    from rich.console import Console

    from treadle.state import State


LAYERS = "model/layers"


class Summary(Callback):
    """Layers, output shapes, parameters and multiply-accumulate operations (MACs), printed once.

    The record has them too, as the text "model/layers".

    Shapes and MACs come from the first training batch on its own way through the model: nothing is run
    for the table's sake, so that no random number is drawn and no running statistic moves. The hooks
    that look on are taken off after it.

    Args:
        max_rows: with more layers, they are folded into the modules that hold them.
        max_depth: fold deeper modules than this in any case.
        shapes: whether to look at the first forward pass. Not for compiled models, which hooks would
            break apart; the table then has parameters only.
        console: where to print; rich's own if left out.
    """

    order = 90.0

    def __init__(
        self,
        max_rows: int = 60,
        max_depth: int | None = None,
        shapes: bool = True,
        console: Console | None = None,
    ) -> None:
        if max_rows < 1 or (max_depth is not None and max_depth < 1):
            raise ValueError(
                f"Summary: max_rows={max_rows!r}, max_depth={max_depth!r}; both must be at least 1"
            )
        self.max_rows = max_rows
        self.max_depth = max_depth
        self.shapes = shapes
        self._console = console
        self._calls: Calls | None = None

    def on_fit_start(self, state: State) -> None:
        """Look on from here, or print at once where shapes are not wanted."""
        if not state.is_main:
            return
        if self.shapes:
            self._calls = Calls(state.task)
        else:
            self._print(state, None, None)

    def on_after_forward(self, state: State) -> None:
        """The first forward pass is done: print."""
        if self._calls is not None:
            self._finish(state)

    # A task with a training step of its own may not fire the first of these.
    on_after_loss = on_after_forward
    on_step_end = on_after_forward

    def on_cleanup(self, state: State) -> None:
        """Leave no hook on the model."""
        if self._calls is not None:
            self._calls.remove()
            self._calls = None

    def _finish(self, state: State) -> None:
        calls, self._calls = self._calls, None
        if calls is not None:
            calls.remove()
            self._print(state, calls, _items(state.batch))

    def _print(self, state: State, calls: Calls | None, items: int | None) -> None:
        from rich import get_console
        from rich.text import Text

        console = self._console or get_console()
        rows = parameter_table(state.task, self.max_rows, self.max_depth, calls)
        heads, *lines = table_lines(rows, console.width, items)
        console.print(Text.assemble((heads, "bold"), *(f"\n{line}" for line in lines)), soft_wrap=True)
        if not state.run.media("text", LAYERS):  # where a run goes on it is there
            state.log_text(LAYERS, "\n".join(table_lines(rows, 100, items)).rstrip())


def table_lines(rows: list[Row], width: int = 80, items: int | None = None) -> list[str]:
    """The table as lines of text: a heading, the rows, and the totals.

    Args:
        rows: from `parameter_table`.
        width: characters in a line; long names lose their beginning.
        items: samples in the recorded batch, by which MACs are divided; None where that is not known.
    """
    shapes = any(row.shape is not None for row in rows)
    frozen = any(row.parameters is not None and row.trainable < row.parameters for row in rows)
    heads = ["layer", "class"]
    heads += ["output shape"] if shapes else []
    heads += ["parameters"]
    heads += ["trainable"] if frozen else []
    heads += ["MACs" if items is None else "MACs/sample"] if shapes else []
    table = [heads]
    for row in rows:
        cells = [row.name, row.kind]
        cells += [_shape_text(row)] if shapes else []
        cells += [_parameters_text(row)]
        cells += [f"{row.trainable:,}"] if frozen else []
        cells += ["-" if row.macs is None else _macs_text(row.macs, items)] if shapes else []
        table.append(cells)
    widths = [max(len(cells[column]) for cells in table) for column in range(len(heads))]
    widths[0] = max(12, min(widths[0], width - sum(widths[1:]) - 2 * len(widths) + 2))
    left = 3 if shapes else 2
    lines = []
    for cells in table:
        cells[0] = cells[0] if len(cells[0]) <= widths[0] else f"…{cells[0][1 - widths[0] :]}"
        padded = (
            cell.ljust(size) if column < left else cell.rjust(size)
            for column, (cell, size) in enumerate(zip(cells, widths, strict=True))
        )
        lines.append("  ".join(padded).rstrip())
    return [*lines, *_totals(rows, items)]


def _totals(rows: list[Row], items: int | None) -> list[str]:
    total = sum(row.parameters or 0 for row in rows)
    trainable = sum(row.trainable for row in rows)
    parts = [f"{total:,} parameters"]
    if trainable < total:
        parts.append(f"{trainable:,} trainable, {total - trainable:,} frozen")
    macs = [row.macs for row in rows if row.macs is not None]
    if macs:
        parts.append(
            f"{_macs_text(sum(macs), items)} MACs {'in the first step' if items is None else 'a sample'}"
        )
    if any(row.parameters is None for row in rows):
        parts.append("lazy layers not counted yet (?)")
    return ["; ".join(parts), ""]


def _macs_text(macs: int, items: int | None) -> str:
    return f"{macs if items is None else round(macs / items):,}"


def _items(batch: Any) -> int | None:
    """The number of samples; a batch of a kind of its own, or none at hand, must not stop a run here."""
    try:
        return max(1, batch_items(batch))
    except (ValueError, TypeError):
        return None


def _shape_text(row: Row) -> str:
    return "-" if row.shape is None else "x".join(map(str, row.shape)) or "scalar"


def _parameters_text(row: Row) -> str:
    if row.parameters is None:
        return "?"
    return "shared" if row.shared and not row.parameters else f"{row.parameters:,}"
