"""A board where callbacks leave values for each other."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from treadle.checkpoint.tree import check_tensor, encode_scalar
from treadle.events import Callback
from treadle.state import State

LIFETIMES = ("read", "step", "epoch", "fit")


class Message(NamedTuple):
    """What lies on the board: the value, how long it stays, and the step and epoch it was left in."""

    value: Any
    until: str
    step: int
    epoch: int


class Messages(Callback):
    """A board where callbacks leave values for each other, each with a lifetime.

    Make one, give it to the trainer with the other callbacks and to whoever posts or reads. A message stays
    until it is "read", until the next "step" starts, until the "epoch" has ended, or until the "fit" has
    ended. What outlives a step is in the checkpoints.

    ```python
    board = treadle.callbacks.Messages()
    board.post(state, "worst samples", indices, until="epoch")
    board.read(state, "worst samples", default=None)
    ```
    """

    # After the others, which may still read at an epoch's end; before checkpoints.
    order = 900.0

    def __init__(self) -> None:
        self._board: dict[str, Message] = {}

    def post(self, state: State, key: str, value: Any, until: str = "read") -> None:
        """Leave a value under a key, in place of an earlier one.

        Args:
            state: what the hook was given.
            key: what to read it by.
            value: anything where it lives until "step"; else what a checkpoint can hold.
            until: how long it stays: "read", "step", "epoch" or "fit".

        Raises:
            ValueError: there is no such lifetime.
            TypeError: the value outlives a step and no checkpoint can hold it.
        """
        if until not in LIFETIMES:
            raise ValueError(f"Messages: until is {until!r}; allowed are {', '.join(map(repr, LIFETIMES))}")
        if until != "step":
            _check(value, f"the message {key!r}")
        self._board[key] = Message(value, until, state.current_step, state.progress.epoch)

    def read(self, state: State, key: str, default: Any = None) -> Any:
        """The value under a key, or `default` where there is none (any more)."""
        message = self._board.get(key)
        if message is None:
            return default
        if message.until == "step" and message.step != state.current_step:
            del self._board[key]
            return default
        if message.until == "read":
            del self._board[key]
        return message.value

    def keys(self, state: State) -> list[str]:
        """What lies on the board."""
        return [key for key in self._board if self._is_there(state, key)]

    def state_dict(self) -> dict[str, Any]:
        """The messages that outlive a step."""
        return {"board": {k: tuple(m) for k, m in self._board.items() if m.until != "step"}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self._board = {key: Message(*message) for key, message in state["board"].items()}

    def on_fit_start(self, state: State) -> None:
        """A new run has an empty board."""
        if state.progress.step == 0:
            self._board.clear()

    def on_epoch_start(self, state: State) -> None:
        """Take off what an epoch that was cancelled has left."""
        self._take_off(lambda message: message.until == "epoch" and message.epoch < state.progress.epoch)

    def on_epoch_end(self, state: State) -> None:
        """Take off what was for the epoch."""
        self._take_off(lambda message: message.until == "epoch")

    def on_cleanup(self, state: State) -> None:
        """Take off what was for the step, the epoch or the fit; what nobody has read stays."""
        self._take_off(lambda message: message.until != "read")

    def _is_there(self, state: State, key: str) -> bool:
        message = self._board[key]
        return message.until != "step" or message.step == state.current_step

    def _take_off(self, over: Any) -> None:
        self._board = {key: message for key, message in self._board.items() if not over(message)}


def _check(value: Any, path: str) -> None:
    """Raise a TypeError unless a checkpoint can hold the value; nothing is copied."""
    if isinstance(value, Tensor):
        check_tensor(value, path)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check(item, f"{path}.{key}")
    elif type(value) in (list, tuple):
        for index, item in enumerate(value):
            _check(item, f"{path}.{index}")
    elif type(value) is not bytes:
        encode_scalar(value, path)
