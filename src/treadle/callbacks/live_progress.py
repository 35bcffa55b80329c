"""The run as a live display: bars at the bottom, a table of epochs growing above them."""

from __future__ import annotations

import atexit
from typing import TYPE_CHECKING, Any

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from treadle.callbacks.pace import (
    Evaluated,
    Pace,
    clock_text,
    duration_text,
    learning_rates,
    number_text,
    of_mode,
    of_text,
)
from treadle.callbacks.progress import Progress
from treadle.runs.shown import charts_of

if TYPE_CHECKING:
    from treadle.state import State


class TerminalProgress(Progress):
    """Bars for the run and for the epoch (or evaluation), the latest values, and two rows an epoch.

    Redrawn at most ten times a second and from the training loop itself: there is no thread. Finished
    rows are printed above the bars for good, so they scroll, can be copied, and cost nothing later.
    """

    seconds = 0.1

    _live: Live | None = None
    _columns: tuple[str, ...] = ()
    _waiting: tuple[Text, ...] = ()

    def open(self) -> None:
        """Forget the headings of the last table."""
        self._columns = ()

    def close(self) -> None:
        """Remove the bars and bring the cursor back."""
        live, self._live = self._live, None
        if live is not None:
            atexit.unregister(live.stop)
            live.stop()
        self._print_waiting()

    def show(self, panel: Table) -> None:
        """Replace the bars, and print above them what has come since the last time."""
        if self._live is None:
            # The first time that something is worth showing: hide the cursor, keep the bottom lines.
            self._live = Live(panel, console=self.console, auto_refresh=False, transient=True)
            # A program that dies between two hooks must not leave the user without a cursor.
            atexit.register(self._live.stop)
            self._live.start()
        self._print_waiting()
        self._live.update(panel, refresh=True)

    def line(self, text: str, style: str = "") -> None:
        """Print one line now, or above the bars when they are drawn next."""
        self._waiting = (*self._waiting, Text(text, style=style))
        if self._live is None:
            self._print_waiting()

    def _print_waiting(self) -> None:
        lines, self._waiting = self._waiting, ()
        if lines:
            self.console.print(Text("\n").join(lines), soft_wrap=True)

    def going_on(self, state: State, now: float) -> None:
        """Draw the bars."""
        panel = Table.grid(padding=(0, 1), expand=True)
        panel.add_column(no_wrap=True, min_width=14)
        panel.add_column(ratio=1)
        panel.add_column(no_wrap=True, justify="right", min_width=24)
        pace = self._pace
        if pace is not None:
            self._add_run(panel, state, pace, now)
        if state.mode == "train" and pace is not None:
            done, total, note = pace.step(state), state.steps_per_epoch, pace.speed(state, now)
            panel.add_row(f"step {of_text(done, total)}", _bar(done, total), note)
        else:
            done, total = self._batches, state.eval_batches
            panel.add_row(f"{state.mode} {of_text(done, total)}", _bar(done, total), "")
        lines = Table.grid(expand=True)
        lines.add_row(panel)
        if pace is not None:
            values = [f"{name} {number_text(v)}" for name, v in of_mode(state.latest, "train").items()]
            values += [f"{name} {rate}" for name, rate in learning_rates(state).items() if rate]
            lines.add_row(Text("  ".join(values), no_wrap=True, overflow="ellipsis", style="cyan"))
        self.show(lines)

    def _add_run(self, panel: Table, state: State, pace: Pace, now: float) -> None:
        left = pace.left(state, now)
        note = clock_text(now - pace.began) + (f", {clock_text(left)} left" if left is not None else "")
        epoch = f"epoch {of_text(pace.epoch, state.max_epochs)}"
        panel.add_row(epoch, _bar(state.progress.step, pace.total(state)), note)

    def evaluated(self) -> None:
        """The rows come with the epoch's, or when the bars are drawn next."""

    def evaluation_done(self, state: State, pace: Pace, evaluated: list[Evaluated]) -> None:
        """Add a row for each evaluation."""
        if not self._rows(state, pace, evaluated, ""):
            super().evaluation_done(state, pace, evaluated)

    def epoch_done(self, state: State, pace: Pace, evaluated: list[Evaluated]) -> None:
        """Add the epoch's rows."""
        train = Evaluated(state.progress.step, "train", of_mode(state.results, "train"))
        if not self._rows(state, pace, [train, *evaluated], duration_text(self._clock() - pace.epoch_began)):
            self.line(self.epoch_line(state, pace, evaluated))

    def _rows(self, state: State, pace: Pace, rows: list[Evaluated], seconds: str) -> bool:
        """Rows under their headings; False if there are more columns than the terminal has room for."""
        columns = tuple(dict.fromkeys([*self._columns, *(name for row in rows for name in row.values)]))
        widths = [max(len(name), 9) for name in columns]
        rates = {name: f"{rate:>{max(len(name), 9)}}" for name, rate in learning_rates(state).items()}
        tail = "".join(f"  {name:>{len(rate)}}" for name, rate in rates.items()) + f"  {'time':>7}"
        if 22 + sum(width + 2 for width in widths) + len(tail) > self.console.width:
            return False
        if columns != self._columns:
            heads = "".join(f"  {name:>{width}}" for name, width in zip(columns, widths, strict=True))
            self.line(f"epoch     step  {'':<6}{heads}{tail}", "bold")
            self._columns = columns
        last_step = None
        for row in rows:
            head = f"{pace.epoch:>5} {row.step:>8}" if row.step != last_step else " " * 14
            cells = (number_text(row.values[name]) if name in row.values else "" for name in columns)
            body = "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
            end = f"  {'  '.join(rates.values())}  {seconds:>7}" if row.mode == "train" else ""
            self.line(f"{head}  {row.mode:<6}{body}{end}".rstrip(), "" if row.mode == "train" else "green")
            last_step = row.step
        return True


class NotebookProgress(TerminalProgress):
    """The same in one output of a notebook's cell, replaced as a whole; below it the curves of all epochs.

    It takes its place when there is something to replace, below what was printed until then.
    """

    seconds = 0.25

    _handle: Any = None
    _curves: Any = None
    _panel: Table | None = None
    _lines: tuple[Text, ...] = ()

    def open(self) -> None:
        """Forget the former places and lines."""
        super().open()
        self._lines = ()
        self._handle = self._curves = None

    def close(self) -> None:
        """Remove the bars; the rows stay."""
        self._panel = None
        self._redraw()

    def epoch_done(self, state: State, pace: Pace, evaluated: list[Evaluated]) -> None:
        """Add the epoch's rows, and draw the curves anew."""
        from IPython.display import HTML

        self._take_place()
        super().epoch_done(state, pace, evaluated)
        # The row of this epoch is recorded before anybody hears of its end.
        self._curves.update(HTML(charts_of(state.run)))

    def show(self, panel: Table) -> None:
        """Replace the bars."""
        self._panel = panel
        self._take_place()
        self._redraw()

    def line(self, text: str, style: str = "") -> None:
        """Add a line, shown when the bars are drawn next, or now if there are none."""
        if self._handle is None:
            self.console.print(Text(text, style=style), soft_wrap=True)
            return
        self._lines = (*self._lines, Text(text, style=style))
        if self._panel is None:
            self._redraw()

    def _take_place(self) -> None:
        if self._handle is None:
            from IPython.display import display

            self._handle = display(Text(""), display_id=True)
            self._curves = display(Text(""), display_id=True)

    def _redraw(self) -> None:
        if self._handle is None:
            return
        # A grid, because rich draws tables for notebooks but not groups.
        whole = Table.grid()
        for line in self._lines:
            whole.add_row(line)
        if self._panel is not None:
            whole.add_row(self._panel)
        self._handle.update(whole)


def _bar(done: int, total: int | None) -> ProgressBar:
    # Without a known end the bar only says that something goes on.
    return ProgressBar(total=total, completed=done, pulse=total is None)
