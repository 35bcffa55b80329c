"""What happens around the math: callbacks, when they fire, and how they cut a scope short."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from treadle import clock

if TYPE_CHECKING:
    from treadle.state import State

Hook = Callable[["State"], None]


class CancelBatch(Exception):  # noqa: N818 - a signal, not an error
    """Skip the rest of this micro-batch; a gradient that it has added already stays."""


class CancelStep(Exception):  # noqa: N818
    """Skip the rest of this optimizer step; gradients so far are dropped."""


class CancelEpoch(Exception):  # noqa: N818
    """Skip the rest of this training epoch; the epoch is still evaluated."""


class CancelFit(Exception):  # noqa: N818
    """End the fit here; `on_cleanup` still runs."""


class Callback:
    """What happens around the math. Override the hooks you need; the others cost nothing.

    Every hook takes the `State` and returns nothing. Hooks run sorted by `order` (lower first), and in
    the order the callbacks were given where it is equal. A callback that remembers something returns it
    from `state_dict`, and it is in every checkpoint under `name`.
    """

    order: float = 0.0

    @property
    def name(self) -> str:
        """The key of this callback's state in a checkpoint; give two of one class different names."""
        return type(self).__name__

    def state_dict(self) -> dict[str, Any]:
        """What must survive a restart: tensors, numbers, strings, lists and dictionaries of these."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""

    def on_fit_start(self, state: State) -> None:
        """Everything is built; nothing is trained yet."""

    def on_fit_end(self, state: State) -> None:
        """The last step is done. Not called when the fit is cancelled or fails."""

    def on_epoch_start(self, state: State) -> None:
        """A training epoch begins, or goes on after a resume."""

    def on_epoch_results(self, state: State) -> None:
        """`state.row` holds the epoch's values, to be added to before schedules and the record see them."""

    def on_epoch_end(self, state: State) -> None:
        """The epoch is trained and evaluated; `state.results` holds its values."""

    def on_step_start(self, state: State) -> None:
        """A window of batches is fetched; its optimizer step begins."""

    def on_step_end(self, state: State) -> None:
        """The optimizer has stepped and `state.progress` counts it."""

    def on_batch_start(self, state: State) -> None:
        """`state.batch` is on the device."""

    def on_after_forward(self, state: State) -> None:
        """`state.output` is what the model returned; also while evaluating."""

    def on_after_loss(self, state: State) -> None:
        """`state.loss` is the micro-batch's combined loss, a scalar on the device."""

    def on_after_backward(self, state: State) -> None:
        """The micro-batch's gradient is added."""

    def on_batch_end(self, state: State) -> None:
        """The micro-batch is done."""

    def on_before_optimizer_step(self, state: State) -> None:
        """Gradients are complete and unscaled, not yet clipped."""

    def on_after_optimizer_step(self, state: State) -> None:
        """Parameters have moved; gradients are still there."""

    def on_eval_start(self, state: State) -> None:
        """An evaluation begins; `state.mode` is its name."""

    def on_eval_batch_start(self, state: State) -> None:
        """`state.batch` is on the device."""

    def on_eval_batch_end(self, state: State) -> None:
        """The batch's loss and metrics are counted."""

    def on_eval_end(self, state: State) -> None:
        """`state.results` holds the evaluation's values."""

    def on_predict_start(self, state: State) -> None:
        """A prediction begins."""

    def on_predict_batch_start(self, state: State) -> None:
        """`state.batch` is on the device."""

    def on_predict_batch_end(self, state: State) -> None:
        """`state.output` is the batch's prediction."""

    def on_predict_end(self, state: State) -> None:
        """All batches are predicted."""

    def on_log(self, state: State) -> None:
        """`state.points` holds the values that have just arrived from the device."""

    def on_media(self, state: State) -> None:
        """`state.media` holds the text, picture or histogram that was just logged."""

    def on_exception(self, state: State) -> None:
        """`state.exception` is about to be raised out of the fit."""

    def on_cleanup(self, state: State) -> None:
        """The fit is over, however it ended."""

    def on_record_closed(self, state: State) -> None:
        """The record says how the run ended, and `state.run` can only be read now; what comes last."""


HOOK_NAMES: tuple[str, ...] = tuple(name for name in vars(Callback) if name.startswith("on_"))


def check_hook_name(name: str, where: str) -> None:
    """Raise a ValueError that lists the known hooks unless `name` is one of them."""
    if name in HOOK_NAMES:
        return
    close = difflib.get_close_matches(name, HOOK_NAMES, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"{where}: there is no hook {name!r}.{hint} Known hooks: {', '.join(HOOK_NAMES)}")


def as_callbacks(callbacks: Any, where: str) -> list[Callback]:
    """A list of the callbacks given at `where`.

    Raises:
        TypeError: it is no list or other iterable.
    """
    if isinstance(callbacks, Iterable):
        return list(callbacks)
    raise TypeError(f"{where}: callbacks is {type(callbacks).__name__}; give a list: callbacks=[...]")


class Hooks:
    """The hooks of a run, compiled: one tuple of bound methods for each event.

    Only methods that override `Callback` are in it, so an event nobody listens to is an empty tuple.

    Raises:
        TypeError: something in `callbacks` is not a `Callback`.
        ValueError: a callback defines an `on_*` method that is no hook, or two share a name and have
            state to save.
    """

    on_fit_start: tuple[Hook, ...]
    on_fit_end: tuple[Hook, ...]
    on_epoch_start: tuple[Hook, ...]
    on_epoch_results: tuple[Hook, ...]
    on_epoch_end: tuple[Hook, ...]
    on_step_start: tuple[Hook, ...]
    on_step_end: tuple[Hook, ...]
    on_batch_start: tuple[Hook, ...]
    on_after_forward: tuple[Hook, ...]
    on_after_loss: tuple[Hook, ...]
    on_after_backward: tuple[Hook, ...]
    on_batch_end: tuple[Hook, ...]
    on_before_optimizer_step: tuple[Hook, ...]
    on_after_optimizer_step: tuple[Hook, ...]
    on_eval_start: tuple[Hook, ...]
    on_eval_batch_start: tuple[Hook, ...]
    on_eval_batch_end: tuple[Hook, ...]
    on_eval_end: tuple[Hook, ...]
    on_predict_start: tuple[Hook, ...]
    on_predict_batch_start: tuple[Hook, ...]
    on_predict_batch_end: tuple[Hook, ...]
    on_predict_end: tuple[Hook, ...]
    on_log: tuple[Hook, ...]
    on_media: tuple[Hook, ...]
    on_exception: tuple[Hook, ...]
    on_cleanup: tuple[Hook, ...]
    on_record_closed: tuple[Hook, ...]

    def __init__(self, callbacks: Iterable[Callback] = ()) -> None:
        self.callbacks: tuple[Callback, ...] = tuple(callbacks)
        for callback in self.callbacks:
            _check_callback(callback)
        self._check_names()
        ordered = sorted(self.callbacks, key=lambda callback: callback.order)
        for name in HOOK_NAMES:
            setattr(self, name, tuple(getattr(c, name) for c in ordered if _overrides(c, name)))

    def _check_names(self) -> None:
        seen: dict[str, Callback] = {}
        for callback in self.callbacks:
            twin = seen.setdefault(callback.name, callback)
            if twin is not callback and (callback.state_dict() or twin.state_dict()):
                raise ValueError(
                    f"two callbacks are named {callback.name!r} and have state to save: "
                    f"{twin!r} and {callback!r}; give one another `name`"
                )

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """The state of every callback that has one, by name."""
        states = {callback.name: callback.state_dict() for callback in self.callbacks}
        return {name: state for name, state in states.items() if state}

    def load_state_dict(self, states: dict[str, dict[str, Any]]) -> None:
        """Give every callback its state back; callbacks that were not saved start anew."""
        for callback in self.callbacks:
            if callback.name in states:
                callback.load_state_dict(states[callback.name])


def _overrides(callback: Callback, name: str) -> bool:
    own = getattr(callback, name)
    return getattr(own, "__func__", own) is not getattr(Callback, name)


def _check_callback(callback: object) -> None:
    if not isinstance(callback, Callback):
        given = callback.__name__ if isinstance(callback, type) else repr(callback)
        hint = " Give an instance, not the class." if isinstance(callback, type) else ""
        raise TypeError(f"callbacks: {given} is not a treadle.Callback.{hint}")
    for name in dir(callback):
        if name.startswith("on_") and callable(getattr(callback, name)):
            check_hook_name(name, type(callback).__name__)


@dataclass
class Every:
    """How often something happens: every so many steps, epochs or seconds; with several, whichever is first.

    Raises:
        ValueError: none is given, or one is not positive, or steps or epochs are no whole number.
    """

    steps: int | None = None
    epochs: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        given = {"steps": self.steps, "epochs": self.epochs, "seconds": self.seconds}
        if all(value is None for value in given.values()):
            raise ValueError("Every: give at least one of steps, epochs, seconds")
        for name, value in given.items():
            if value is None:
                continue
            kinds = (int, float) if name == "seconds" else int
            if isinstance(value, bool) or not isinstance(value, kinds):
                number = "a number" if name == "seconds" else "a whole number"
                raise ValueError(f"Every: {name} is {value!r}; it must be {number}")
            if not value > 0:
                raise ValueError(f"Every: {name} is {value!r}; it must be positive")
        self._clock = clock.now
        self._last = self._clock()

    def at_step(self, step: int) -> bool:
        """Whether it is due after optimizer step number `step` (the first is 1)."""
        return (self.steps is not None and step % self.steps == 0) or self._elapsed()

    def at_epoch(self, epoch: int) -> bool:
        """Whether it is due after epoch number `epoch` (the first is 1)."""
        return (self.epochs is not None and epoch % self.epochs == 0) or self._elapsed()

    def _elapsed(self) -> bool:
        if self.seconds is None:
            return False
        if clock.now is not self._clock:  # several processes have agreed on one: count from there
            self._clock = clock.now
            self._last = self._clock()
        now = self._clock()
        if now - self._last < self.seconds:
            return False
        self._last = now
        return True


class FunctionCallback(Callback):
    """A plain function subscribed to one event by `trainer.on`, every so often.

    Raises:
        ValueError: there is no such event, or `every` does not fit it.
    """

    def __init__(self, event: str, function: Hook, every: Every | None = None, order: float = 0.0) -> None:
        hook = event if event.startswith("on_") else f"on_{event}"
        check_hook_name(hook, "trainer.on")
        self.order = order
        self._function = function
        setattr(self, hook, function if every is None else self._filtered(every, hook))

    @property
    def name(self) -> str:
        """The function's own name."""
        return getattr(self._function, "__qualname__", type(self._function).__qualname__)

    def _filtered(self, every: Every, hook: str) -> Hook:
        function = self._function

        def at_epoch(state: State) -> None:
            if every.at_epoch(state.progress.epoch):
                function(state)

        def at_step(state: State) -> None:
            if every.at_step(state.progress.step):
                function(state)

        by_epoch = hook in ("on_epoch_end", "on_eval_end")
        if not by_epoch and every.epochs is not None:
            raise ValueError(f"trainer.on({hook!r}): Every(epochs=...) goes with on_epoch_end or on_eval_end")
        return at_epoch if by_epoch and every.steps is None else at_step
