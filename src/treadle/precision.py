"""Which number format the forward pass computes in, and what backward and step need because of it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from treadle.direct_step import direct_step


class Precision:
    """Single precision: every method does the plain thing. The formats below subclass it.

    The engine calls, for each optimizer step: `autocast()` around the forward pass and the loss,
    `scale` before backward, `unscale` once gradients are complete, the `stepper`, and `update` when every
    optimizer of the window has stepped.
    """

    name: str = "fp32"

    def __init__(self) -> None:
        self._context: AbstractContextManager[Any] = nullcontext()

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of the forward pass: one object for the whole run, entered again and again."""
        return self._context

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function that does the same under `autocast`: `function` itself where that is nothing."""
        context = self.autocast()
        if type(context) is nullcontext:
            return function

        def inside(*arguments: Any) -> Any:
            with self.autocast():
                return function(*arguments)

        return inside

    def scale(self, loss: Tensor) -> Tensor:
        """The loss to call backward on."""
        return loss

    def unscale(self, optimizer: Optimizer) -> None:
        """Make the gradients of `optimizer` the true ones, before they are looked at or clipped."""

    def stepper(self, optimizer: Optimizer) -> Callable[[], Any]:
        """The function that steps `optimizer`, made once at set-up."""
        return direct_step(optimizer)

    def update(self) -> None:
        """Every optimizer of this window has stepped."""

    def abandon(self) -> None:
        """The step under way is given up: forget what was noted of its gradients."""

    def state_dict(self) -> dict[str, Any]:
        """What must survive a restart: plain numbers."""
        return {}

    def check_state(self, state: dict[str, Any]) -> None:
        """Raise a ValueError unless this precision can go on with a saved state."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class BFloat16(Precision):
    """Matrix products in bfloat16, parameters and reductions in float32 (torch.autocast).

    Args:
        device_type: "cpu", "cuda" and so on, where the model runs.

    Raises:
        ValueError: torch has no autocast for this device.
    """

    name = "bf16"

    def __init__(self, device_type: str = "cpu") -> None:
        super().__init__()
        self._context = _Autocast(device_type, torch.bfloat16)


class ScaledFloat16(Precision):
    """Matrix products in float16, with the loss scaled so that small gradients do not vanish.

    Where a gradient overflows, the step is skipped and the scale is lowered; after `growth_interval`
    steps without one it is raised (Micikevicius et al. 2018, torch.amp.GradScaler). The scale is
    always a power of two here by default, so scaling itself rounds nothing.

    Args:
        device_type: "cpu", "cuda" and so on, where the model runs.
        initial_scale: the first factor on the loss.
        growth_factor: what the scale is multiplied by when it is raised.
        backoff_factor: what it is multiplied by after an overflow.
        growth_interval: steps without an overflow before it is raised.

    Raises:
        ValueError: torch has no autocast for this device, or a setting is out of its range.
    """

    name = "fp16"

    def __init__(
        self,
        device_type: str = "cpu",
        initial_scale: float = 65536.0,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
    ) -> None:
        super().__init__()
        if not (initial_scale > 0 and growth_factor > 1 and 0 < backoff_factor < 1 and growth_interval > 0):
            raise ValueError(
                f"ScaledFloat16: initial_scale={initial_scale!r}, growth_factor={growth_factor!r}, "
                f"backoff_factor={backoff_factor!r}, growth_interval={growth_interval!r}; allowed are "
                "initial_scale > 0, growth_factor > 1, 0 < backoff_factor < 1, growth_interval > 0"
            )
        self._context = _Autocast(device_type, torch.float16)
        self.scaler = torch.amp.GradScaler(
            device_type,
            init_scale=initial_scale,
            growth_factor=growth_factor,
            backoff_factor=backoff_factor,
            growth_interval=growth_interval,
        )
        self._unscaled: set[int] = set()

    def scale(self, loss: Tensor) -> Tensor:
        """The loss times the scale."""
        return self.scaler.scale(loss)

    def unscale(self, optimizer: Optimizer) -> None:
        """Divide the gradients by the scale; a second call before `update` changes nothing."""
        if id(optimizer) not in self._unscaled:
            self._unscaled.add(id(optimizer))
            self.scaler.unscale_(optimizer)

    def stepper(self, optimizer: Optimizer) -> Callable[[], Any]:
        """A function that steps `optimizer` unless one of its gradients is infinite or NaN."""
        # Waits for the device: the scaler reads whether an overflow was found, to decide on the host
        # whether to step. Fused optimizers decide on the device instead, and nothing waits.
        return functools.partial(self.scaler.step, optimizer)

    def update(self) -> None:
        """Adjust the scale, on the device."""
        self._unscaled.clear()
        self.scaler.update()

    def abandon(self) -> None:
        """Gradients that were unscaled are dropped, so the next ones are to be unscaled again."""
        self._unscaled.clear()
        self.scaler._per_optimizer_states.clear()

    def state_dict(self) -> dict[str, Any]:
        """The scale and how long it has gone without an overflow."""
        # Reading the scale waits for the device; only checkpoints do it.
        return self.scaler.state_dict()

    def check_state(self, state: dict[str, Any]) -> None:
        """Raise a ValueError unless the state has a scale."""
        if not state:
            raise ValueError(
                "the checkpoint is of a run in another precision, which has no loss scale to go on with; "
                f"precision is {self.name!r}: resume with the precision that the run was started with"
            )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the scale that `state_dict` returned."""
        self.scaler.load_state_dict(state)


class _Autocast:
    """torch.autocast that can be entered again and again, also inside itself.

    A torch.autocast remembers what it found in one attribute, so entering one object inside itself
    leaves autocast switched on for good. Here only the outermost entry uses the kept object. Leaving
    it drops torch's cache of cast weights, so the next forward pass sees the stepped ones.
    """

    def __init__(self, device_type: str, dtype: torch.dtype) -> None:
        if not torch.amp.is_autocast_available(device_type):
            raise ValueError(
                f"torch has no autocast for the device type {device_type!r}; use precision 'fp32'"
            )
        self._make: Callable[[], torch.autocast] = lambda: torch.autocast(device_type, dtype=dtype)
        self._kept = self._make()
        self._entered: list[torch.autocast] = []

    def __enter__(self) -> None:
        context = self._make() if self._entered else self._kept
        context.__enter__()  # type: ignore[no-untyped-call]
        self._entered.append(context)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered.pop().__exit__(kind, error, trace)


_FORMATS: dict[str, Callable[[str], Precision]] = {
    "fp32": lambda _: Precision(),
    "bf16": BFloat16,
    "fp16": ScaledFloat16,
}

# What users of other trainers type.
_ALIASES = {
    "32": "fp32",
    "32-true": "fp32",
    "float32": "fp32",
    "bf16-mixed": "bf16",
    "bfloat16": "bf16",
    "16": "fp16",
    "16-mixed": "fp16",
    "fp16-mixed": "fp16",
    "float16": "fp16",
}


def precision_of(precision: str | int | Precision, device_type: str = "cpu") -> Precision:
    """The precision a user names: "fp32", "bf16", "fp16" (or what other trainers call these), or an object.

    Raises:
        ValueError: the name is unknown, or the device has no such precision.
        TypeError: it is neither a name nor a `Precision`.
    """
    if isinstance(precision, Precision):
        return precision
    if not isinstance(precision, (str, int)):
        raise TypeError(f"precision is {precision!r}; allowed are {_allowed()}")
    name = str(precision)
    name = _ALIASES.get(name, name)
    if name not in _FORMATS:
        raise ValueError(f"precision is {precision!r}; allowed are {_allowed()}")
    return _FORMATS[name](device_type)


def _allowed() -> str:
    return f"{', '.join(map(repr, _FORMATS))} and treadle.precision.Precision objects"
