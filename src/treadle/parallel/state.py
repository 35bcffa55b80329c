"""What the loop knows now, where several processes must agree on when to stop."""

from __future__ import annotations

from typing import Any

from treadle.events import Hooks
from treadle.parallel.last_words import LastWords
from treadle.state import State


class ParallelState(State):
    """A state whose stop is a wish until all processes have heard of it.

    Wishes ride along with the numbers that a step exchanges anyway. After a log boundary, an evaluation and
    an epoch all agree at once, so what is decided there ends the run where it would end on one process. A
    wish that comes up anywhere else (a signal, a callback's own condition) ends it one step later at most.

    Attributes:
        last_words: what is printed of this process should it be killed.
    """

    __slots__ = ("last_words",)

    def __init__(self, **fields: Any) -> None:
        self.last_words = LastWords()
        hooks = Hooks([self.last_words, *fields.pop("hooks").callbacks])
        super().__init__(hooks=hooks, **fields)

    def request_stop(self, reason: str) -> None:
        """Wish for the end of the fit; see the class."""
        self.engine.strategy.pulse.ask(reason)

    def interrupt(self, reason: str) -> None:
        """Somebody outside asks this process for the end, to go on later: all processes leave."""
        strategy = self.engine.strategy
        strategy.pulse.ask(f"{reason} on rank {strategy.rank}", leaving=True)

    def goes_on(self) -> bool:
        """Whether epochs and steps remain and no process has asked to stop."""
        super().goes_on()
        self.agree()
        return super().goes_on()

    def flush(self) -> None:
        """Read and hand on what all processes logged; a log boundary, which all come to together."""
        super().flush()
        self.agree()

    def turned(self, turn: Any) -> Any:
        """A step, after which all processes know whether it was the last."""

        def together(window: Any, state: State) -> None:
            turn(window, state)
            self.settle()

        return together

    def agree(self) -> None:
        """Ask all processes whether any wants to stop."""
        self.engine.strategy.exchange([])
        self.settle()

    def settle(self) -> None:
        """Take over what the last exchange agreed on."""
        pulse = self.engine.strategy.pulse
        if not pulse.stop or self.stop_reason is not None:
            return
        wishes = self.engine.gather([pulse.reason, pulse.leaving])
        self.stop_reason = next(reason for reason, _ in wishes if reason is not None)
        self.interrupted = any(leaving for _, leaving in wishes)
