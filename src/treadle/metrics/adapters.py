"""Metrics of other libraries, taken as they are, without importing any of them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from treadle.metrics.base import Mean, Metric

_ACCEPTED = (
    "a treadle Metric, a torchmetrics metric or MetricCollection, a torcheval metric, "
    "or a function of (output, target) that returns one number"
)


def as_metric(thing: Any, name: str = "metric") -> Metric:
    """`thing` as a `Metric`; what is given is copied, never changed.

    Args:
        thing: a `Metric`, a torchmetrics or torcheval metric (called as they call it: predictions, then
            targets), or a plain function(output, target) whose batch values are averaged over items.
        name: what the caller calls it, for messages.

    Raises:
        TypeError: it is a class instead of an instance, or none of these.
    """
    if isinstance(thing, type):
        raise TypeError(
            f"metrics[{name!r}]: {thing.__name__} is a class; give an instance: {thing.__name__}()"
        )
    if isinstance(thing, Metric):
        return copy.deepcopy(thing)
    if _has(thing, "update", "compute", "reset", "metric_state") and isinstance(thing, torch.nn.Module):
        return TorchMetrics(thing, name)
    if _has(thing, "update", "compute", "reset", "state_dict", "load_state_dict", "merge_state", "to"):
        return TorchEval(thing, name)
    if callable(thing):
        return Mean(thing)
    raise TypeError(f"metrics[{name!r}]: {thing!r} is no metric; allowed are {_ACCEPTED}")


def _has(thing: Any, *names: str) -> bool:
    return all(hasattr(type(thing), name) for name in names)


class ForeignMetric(Metric):
    """Another library's metric behind the same few methods; joined over replicas by `merge` only."""

    additive = False

    def __init__(self, metric: Any, name: str) -> None:
        super().__init__()
        self.metric = copy.deepcopy(metric)
        self.name = name
        self.updates = 0
        self.reset()

    def update(self, output: Any, target: Any) -> None:
        """Hand one batch to the metric: predictions, then targets."""
        self.metric.update(output.detach() if isinstance(output, Tensor) else output, target)
        self.updates += 1

    def compute(self) -> Tensor | dict[str, Tensor]:
        """The metric's value; NaN before the first update, where the libraries warn or fail."""
        if self.updates == 0:
            return self._scalar(float("nan"))
        return self._plain(self.metric.compute())

    def reset(self) -> None:
        """Forget every batch."""
        self.metric.reset()
        self.updates = 0

    def to(self, device: torch.device | str) -> None:
        """Move the metric's state."""
        self.device = torch.device(device)
        self.metric.to(self.device)

    def sums(self) -> list[Tensor]:
        """Not defined: the state need not be sums.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            f"metrics[{self.name!r}]: {type(self.metric).__name__} is joined by merge, not by sums"
        )

    def load_sums(self, sums: Sequence[Tensor]) -> None:
        """Not defined; see `sums`."""
        self.sums()

    def _plain(self, value: Any) -> Tensor | dict[str, Tensor]:
        if isinstance(value, Mapping):
            return {str(key): self._one(item) for key, item in value.items()}
        if isinstance(value, (tuple, list)) or (
            isinstance(value, Tensor) and value.ndim == 1 and len(value) > 1
        ):
            return {str(index): self._one(item) for index, item in enumerate(value)}
        return self._one(value)

    def _one(self, value: Any) -> Tensor:
        if isinstance(value, (int, float)):
            return self._scalar(float(value))
        if isinstance(value, Tensor) and value.numel() == 1:
            return value.detach().reshape(())
        shape = f" of shape {tuple(value.shape)}" if isinstance(value, Tensor) else ""
        raise ValueError(
            f"metrics[{self.name!r}]: {type(self.metric).__name__}.compute() returned a "
            f"{type(value).__name__}{shape}; a metric is a number, a vector, or a dictionary of numbers"
        )


class TorchMetrics(ForeignMetric):
    """A torchmetrics metric, wrapper or collection: its own state and that of every metric inside it."""

    def __init__(self, metric: Any, name: str) -> None:
        super().__init__(metric, name)
        for _, part in self._parts():
            # compute() must not start a collective of its own: replicas are joined by merge.
            part.sync_on_compute = part._to_sync = False

    def _parts(self) -> Iterator[tuple[str, Any]]:
        """Every torchmetrics metric in the module tree with states of its own, by path ("" is the root)."""
        metrics = {path: part for path, part in self.metric.named_modules() if hasattr(part, "_defaults")}
        # A wrapper may show the states of the metric inside it as its own; the inner one counts.
        owner = {id(part._defaults): path for path, part in metrics.items()}
        for path, part in metrics.items():
            part._computed = None  # compute() would return its cached value
            if owner[id(part._defaults)] == path:
                yield path, part

    def compute(self) -> Tensor | dict[str, Tensor]:
        """The metric's value; NaN before the first update."""
        with warnings.catch_warnings():
            # A wrapped metric that got no sample of its own warns; its value says so already.
            warnings.filterwarnings("ignore", message=".*compute.*was called before.*update.*")
            return super().compute()

    def state_dict(self) -> dict[str, Any]:
        """Every part's state and number of updates, by path."""
        self._settle()
        parts = {
            path: {
                "updates": part._update_count,
                "state": {k: _copied(getattr(part, k)) for k in part._defaults},
            }
            for path, part in self._parts()
        }
        return {"updates": self.updates, "parts": parts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Raises:
            ValueError: the state is another metric's.
        """
        self.reset()
        self._check(state)
        self.updates = int(state["updates"])
        for path, part in self._parts():
            saved = state["parts"][path]
            for key, value in saved["state"].items():
                setattr(part, key, _copied(value, self.device))
            part._update_count = int(saved["updates"])

    def merge(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Join the states of replicas with the reduction that the metric declares for each."""
        self._settle()
        for path, part in self._parts():
            others = [state["parts"][path] for state in states]
            for key in part._defaults:
                values = [getattr(part, key), *(_copied(o["state"][key], self.device) for o in others)]
                setattr(part, key, _reduced(values, part._reductions[key]))
            part._update_count += sum(int(other["updates"]) for other in others)
        self.updates += sum(int(state["updates"]) for state in states)

    def _settle(self) -> None:
        # A collection lets metrics with equal states share one and updates only the first; reading its
        # items brings the others up to date.
        if hasattr(self.metric, "compute_groups"):
            list(self.metric.items())

    def _check(self, state: Mapping[str, Any]) -> None:
        own = {path: set(part._defaults) for path, part in self._parts()}
        saved = {path: set(part["state"]) for path, part in state.get("parts", {}).items()}
        if own != saved:
            raise ValueError(
                f"metrics[{self.name!r}]: the saved state has {saved}, "
                f"{type(self.metric).__name__} keeps {own}; was it saved by another metric?"
            )


class TorchEval(ForeignMetric):
    """A torcheval metric."""

    def state_dict(self) -> dict[str, Any]:
        """The metric's own state dictionary, and the number of updates."""
        return {"updates": self.updates, "state": self.metric.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Raises:
            RuntimeError: the state is another metric's.
        """
        self.metric.load_state_dict(_copied(state["state"], self.device))
        self.updates = int(state["updates"])

    def merge(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Join replicas by the metric's own `merge_state`."""
        replicas = []
        for state in states:
            replica = copy.deepcopy(self.metric)
            replica.load_state_dict(_copied(state["state"], self.device))
            replicas.append(replica)
            self.updates += int(state["updates"])
        self.metric.merge_state(replicas)


def _copied(value: Any, device: torch.device | None = None) -> Any:
    if isinstance(value, Tensor):
        value = value.detach().clone()
        return value if device is None else value.to(device)
    if isinstance(value, Mapping):
        return {key: _copied(item, device) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copied(item, device) for item in value]
    return value


def _reduced(values: list[Any], reduction: Any) -> Any:
    """Join one state of several replicas as torchmetrics does between ranks."""
    if isinstance(values[0], Tensor):
        stacked = torch.stack(values)
        return stacked if reduction is None else reduction(stacked)
    return [item for value in values for item in value]
