"""Pictures of what evaluations found: confusion, ROC, residuals, samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from treadle.collecting import Collector, Results
from treadle.events import Callback
from treadle.state import State


class ResultPicture(Callback):
    """Record a picture of the results of evaluations, for the report and for loggers.

    It keeps everything that the evaluation sees until the picture is drawn, in CPU memory, and so waits for
    the device with every batch.

    Args:
        draw: makes a picture of the results: a figure of matplotlib, an image, or PNG bytes, see
            `State.log_picture`; such as ``lambda results: treadle.scores.classification(results).figure()``.
        data: which evaluation: "val", or another name of the data.
        every: draw at every so many of them; the picture of the last one drawn is in the report.
        name: what the picture is called.

    Raises:
        ValueError: `every` is not positive.
    """

    def __init__(
        self, draw: Callable[[Results], Any], data: str = "val", every: int = 1, name: str = "results"
    ) -> None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(f"ResultPicture: every is {every!r}; it must be a positive whole number")
        self.draw = draw
        self.data = data
        self.every = every
        self.picture = name
        self._seen = 0
        self._collector: Collector | None = None

    def state_dict(self) -> dict[str, Any]:
        """How many evaluations there were."""
        return {"seen": self._seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on counting."""
        self._seen = state["seen"]

    @property
    def name(self) -> str:
        """One for each picture."""
        return f"ResultPicture {self.data}/{self.picture}"

    def on_eval_start(self, state: State) -> None:
        """Collect, where a picture is due."""
        self._collector = None
        if state.mode == self.data:
            self._seen += 1
            if self._seen % self.every == 0:
                self._collector = Collector(state.task)
                self._collector.begin(state.engine, state.evaluations[self.data])
                self._collector.on_eval_start(state)

    def on_eval_batch_end(self, state: State) -> None:
        """Keep one batch."""
        if self._collector is not None:
            self._collector.on_eval_batch_end(state)

    def on_eval_end(self, state: State) -> None:
        """Draw."""
        collector, self._collector = self._collector, None
        if collector is None:
            return
        collector.on_eval_end(state)
        values = {key: value for key, value in state.results.items() if key.startswith(f"{self.data}/")}
        results = collector.results(values)
        if state.is_main:
            state.log_picture(self.picture, self.draw(results))
