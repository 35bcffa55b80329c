"""What a metric is: named accumulators, all of them sums, on the device of the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class Metric:
    """A number (or a few) over every sample of an epoch, from sums that batches are added to.

    A metric of your own names its accumulators in the constructor and adds to them in `update`:

        class Bias(Metric):
            total: torch.Tensor
            count: int

            def __init__(self):
                super().__init__()
                self.accumulate("total", torch.zeros((), dtype=torch.float64))
                self.accumulate("count", 0)

            def update(self, output, target):
                self.total.add_((output.detach() - target).sum())
                self.count += target.numel()

            def compute(self):
                return self.ratio(self.total, self.count)

    Accumulators are sums: two replicas that saw different samples are joined by adding them, which is
    how ranks are. A count known from shapes alone is best a plain int: it costs no kernel. `update` must
    never read a tensor's value on the host (`item`, `tolist`, `bool`, a print): that waits for the
    device on every batch.
    """

    additive: bool = True
    """Whether `sums` is all there is to join. Where it is False, replicas are joined by `merge` only."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self._initial: dict[str, Tensor | int | float] = {}

    def accumulate(self, name: str, initial: Tensor | int | float) -> None:
        """Keep an accumulator as the attribute `name`; `reset` brings it back to `initial`."""
        self._initial[name] = initial
        setattr(self, name, self._fresh(initial))

    def update(self, output: Any, target: Any) -> None:
        """Add one batch: what the model returned, and what it should have."""
        raise NotImplementedError(f"{type(self).__name__} does not define update(output, target)")

    def compute(self) -> Tensor | dict[str, Tensor]:
        """The value over everything since `reset`: a scalar on the device, or several by name.

        NaN where no sample was seen.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define compute()")

    def reset(self) -> None:
        """Forget every batch."""
        for name, initial in self._initial.items():
            setattr(self, name, self._fresh(initial))

    def to(self, device: torch.device | str) -> None:
        """Move the accumulators; batches must be on the same device."""
        self.device = torch.device(device)
        for name, initial in self._initial.items():
            if isinstance(initial, Tensor):
                # The initial value too: copying it from the host at every reset would wait for the device.
                self._initial[name] = place(initial, self.device)
                setattr(self, name, place(getattr(self, name), self.device))
            elif isinstance(value := getattr(self, name), Tensor):
                setattr(self, name, place(value, self.device))

    def sums(self) -> list[Tensor]:
        """Copies of the accumulators as tensors, in a fixed order: add them over replicas."""
        values = (getattr(self, name) for name in self._initial)
        return [value.clone() if isinstance(value, Tensor) else self._scalar(value) for value in values]

    def load_sums(self, sums: Sequence[Tensor]) -> None:
        """Take `sums`, added over replicas, as this metric's accumulators."""
        for name, value in zip(self._initial, sums, strict=True):
            setattr(self, name, place(value.clone(), self.device))

    def merge(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Add what other replicas of this metric saw, given their `state_dict`."""
        for state in states:
            for name in self._initial:
                value, other = getattr(self, name), state[name]
                if isinstance(other, Tensor):
                    other = place(other, self.device)
                setattr(self, name, value + other)

    def state_dict(self) -> dict[str, Any]:
        """Copies of the accumulators by name: tensors on the device, and numbers."""
        state = {name: getattr(self, name) for name in self._initial}
        return {name: v.clone() if isinstance(v, Tensor) else v for name, v in state.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Raises:
            ValueError: the state is another metric's.
        """
        if set(state) != set(self._initial):
            raise ValueError(
                f"{type(self).__name__}: the saved state has {sorted(state)}, "
                f"this metric keeps {sorted(self._initial)}; was it saved by another metric?"
            )
        for name, value in state.items():
            setattr(self, name, self._fresh(value))

    def ratio(self, total: Tensor, count: Tensor | int) -> Tensor:
        """`total / count` in double precision where the device has it; NaN for 0 / 0."""
        return total.to(_widest(total.device)) / count

    def _scalar(self, value: int | float) -> Tensor:
        # `full` fills on the device; `tensor` would copy from the host and wait.
        kind = torch.int64 if isinstance(value, int) else _widest(self.device)
        return torch.full((), value, dtype=kind, device=self.device)

    def _fresh(self, value: Tensor | int | float) -> Any:
        if not isinstance(value, Tensor):
            return value
        # A tensor made in inference mode could not be added to outside it.
        with torch.inference_mode(False):
            return place(value.detach().clone(), self.device)


def _widest(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64


def place(value: Tensor, device: torch.device) -> Tensor:
    """`value` on `device`; double precision becomes single on Apple's GPUs, which have none."""
    return value.to(device, _widest(device)) if value.dtype == torch.float64 else value.to(device)


class Mean(Metric):
    """The mean over items of a function that returns a batch's mean.

    Args:
        function: takes (output, target) and returns a scalar, the mean over the batch's items. Each
            batch counts by its number of items (the target's leading dimension), so the result is the
            mean over all items however they were batched.

    Raises:
        TypeError: `function` cannot be called.
    """

    total: Tensor
    count: int

    def __init__(self, function: Callable[[Any, Any], Tensor | float]) -> None:
        super().__init__()
        if not callable(function):
            raise TypeError(f"Mean: {function!r} cannot be called; give a function of (output, target)")
        self.function = function
        self.accumulate("total", torch.zeros((), dtype=torch.float64))
        self.accumulate("count", 0)

    def update(self, output: Any, target: Any) -> None:
        """Add `function(output, target)`, weighted by the batch's items.

        Raises:
            ValueError: the function returned something else than a scalar.
        """
        value = self.function(_detached(output), target)
        self.add(value, _items(target if target is not None else output))

    def add(self, value: Tensor | float, items: int) -> None:
        """Add the mean `value` of `items` items."""
        if isinstance(value, Tensor):
            if value.numel() != 1:
                raise ValueError(
                    f"{self._label()} returned a tensor of shape {tuple(value.shape)}; "
                    "a metric function returns one number, the mean over the batch"
                )
            value = value.detach().reshape(())
        self.total.add_(value, alpha=items)
        self.count += items

    def compute(self) -> Tensor:
        """The mean over items."""
        return self.ratio(self.total, self.count)

    def _label(self) -> str:
        return f"metric function {getattr(self.function, '__name__', type(self.function).__name__)}"


def _detached(tree: Any) -> Any:
    """Outputs without the way back, so that a function may turn them into NumPy arrays."""
    if isinstance(tree, Tensor):
        return tree.detach()
    if type(tree) is dict:
        return {key: _detached(value) for key, value in tree.items()}
    return type(tree)(map(_detached, tree)) if type(tree) in (tuple, list) else tree


def _items(tree: Any) -> int:
    """The leading dimension of the first tensor in a batch (a scalar is one item)."""
    if isinstance(tree, Tensor):
        return tree.shape[0] if tree.ndim else 1
    if isinstance(tree, Mapping):
        return _items(next(iter(tree.values())))
    return _items(tree[0]) if isinstance(tree, (tuple, list)) and tree else len(tree)
