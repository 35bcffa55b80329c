"""An optimizer's step without the wrapper torch puts around it for profilers and hooks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.autograd import profiler
from torch.optim import Optimizer
from torch.optim import optimizer as torch_optimizer


def direct_step(optimizer: Optimizer) -> Callable[[], Any]:
    """A function that steps `optimizer`, straight into its own method where nothing listens in between.

    Torch wraps every optimizer's `step` in a `record_function` and two rounds of hooks, which cost more
    than a small model's update. The same method is entered here without them, so the numbers are the
    same bits. While a hook is registered or a profiler records, or where `step` is somebody's own
    replacement, the step goes through the wrapper as usual; that is looked at on every call.
    """
    wrapper = type(optimizer).step
    method = getattr(wrapper, "__wrapped__", None) if getattr(wrapper, "hooked", False) else None
    replaced = vars(optimizer).get("step")
    if method is None or not (replaced is None or _only_counts(replaced, wrapper)):
        return lambda: optimizer.step()
    if replaced is not None:
        optimizer._opt_called = True  # type: ignore[attr-defined]  # all that a scheduler's wrapper does
    attributes = vars(optimizer)
    before, after = optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks
    global_before = torch_optimizer._global_optimizer_pre_hooks
    global_after = torch_optimizer._global_optimizer_post_hooks

    def step() -> None:
        if (
            before
            or after
            or global_before
            or global_after
            or profiler._is_profiler_enabled
            or attributes.get("step") is not replaced
        ):
            optimizer.step()
        else:
            method(optimizer)

    return step


def _only_counts(replaced: Any, wrapper: Any) -> bool:
    """Whether an optimizer's own `step` is only the note that a learning-rate scheduler keeps."""
    function = getattr(replaced, "__func__", replaced)
    return getattr(function, "_wrapped_by_lr_sched", False) and function.__wrapped__ is wrapper
