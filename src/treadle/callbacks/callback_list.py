"""Several callbacks as one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from treadle.events import HOOK_NAMES, Callback, Hook, Hooks
from treadle.state import State


class CallbackList(Callback):
    """A callback made of several, to be given and reused as one.

    Among themselves they run sorted by their own `order`, and as given where it is equal; among the
    trainer's callbacks they run together, at the list's `order`. Their states are in the checkpoint under
    the list's name.

    Args:
        callbacks: the parts; lists may hold lists.
        order: where the whole runs.

    Raises:
        TypeError, ValueError: as for `Hooks`: a part is no callback, or two have one name and state.
    """

    def __init__(self, callbacks: Iterable[Callback], order: float = 0.0) -> None:
        self._hooks = Hooks(callbacks)
        self.order = order
        # Only hooks that some part has, so that the others cost nothing here either.
        for name in HOOK_NAMES:
            parts: tuple[Hook, ...] = getattr(self._hooks, name)
            if parts:
                setattr(self, name, _all(parts))

    @property
    def callbacks(self) -> tuple[Callback, ...]:
        """The parts, as given."""
        return self._hooks.callbacks

    @property
    def name(self) -> str:
        """The names of the parts."""
        return f"CallbackList({', '.join(callback.name for callback in self.callbacks)})"

    def state_dict(self) -> dict[str, Any]:
        """The states of the parts that have one, by name."""
        return dict(self._hooks.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Give every part its state back."""
        self._hooks.load_state_dict(state)


def _all(hooks: tuple[Hook, ...]) -> Hook:
    def call(state: State) -> None:
        for hook in hooks:
            hook(state)

    return call
