"""A model, a loss and an optimizer as a task."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.optim import Optimizer

from treadle import class_path
from treadle.loss_items import PartialLoss, items_of, with_tensors
from treadle.metrics import Metric, as_metric
from treadle.schedules import GivenSchedule, Schedule, as_schedule
from treadle.state import State
from treadle.strategy import Items
from treadle.task import TOTAL, Loss, Task


class SupervisedTask(Task):
    """A model, a loss of (output, target), an optimizer.

    Args:
        model: any module. A batch (x, y) calls model(x); (a, b, y) calls model(a, b); a mapping calls
            model(**inputs) with all but the target (or model(x) when only one is left).
        loss: a function or module of (output, target) that returns the mean over the batch, or a mapping
            of names to such functions; or a configuration {"class_path": ..., "init_args": ...}. None where
            the model computes its own loss and returns it as `output.loss` or `output["loss"]`. Parameters
            of a loss (a network it compares features of, say) are not trained: to train them, override
            `configure_optimizers`.
        optimizer: a class or anything else that builds one from parameters; a configuration; or an
            optimizer of this model's parameters.
        lr: the learning rate, where `optimizer` builds one.
        scheduler: a torch scheduler's class or builder or configuration (ticks every epoch), or a `Schedule`.
        metrics: by name: treadle's, torchmetrics', torcheval's, or functions of (output, target).
        loss_weights: weights of the named losses.
        target: the key of the target in batches that are mappings; found by itself if it is one of
            target, targets, label, labels, y.

    Raises:
        TypeError, ValueError: an argument is of another kind than these, or the optimizer is not the model's.
    """

    TARGETS = ("target", "targets", "label", "labels", "y")

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[..., Any] | Mapping[str, Any] | None = None,
        optimizer: Callable[..., Optimizer] | Mapping[str, Any] | Optimizer = torch.optim.AdamW,
        lr: float | None = None,
        scheduler: Any = None,
        metrics: Mapping[str, Metric | Callable[..., Any]] | None = None,
        loss_weights: Mapping[str, float] | None = None,
        target: str | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise TypeError(f"SupervisedTask: model is {_described(model)}; it must be a torch.nn.Module")
        if lr is not None and not (isinstance(lr, (int, float, Tensor)) and lr > 0):
            raise ValueError(f"SupervisedTask: lr is {lr!r}; it must be a positive number")
        self.model = model
        self.target = target
        self.loss = _built_loss(loss)
        self._items = items_of(self.loss)
        self._finds_targets = type(self).prepare_batch is SupervisedTask.prepare_batch
        self.loss_weights = _checked_weights(loss_weights, self.loss)
        losses = self.loss.values() if isinstance(self.loss, dict) else ()
        modules = [one for one in losses if isinstance(one, nn.Module)]
        stateful = [one for one in modules if isinstance(one, PartialLoss) or one.state_dict()]
        if stateful:  # those are moved and saved with the task, as a single loss is
            self.stateful_losses = nn.ModuleList(dict.fromkeys(stateful))
        self.metrics = {name: as_metric(metric, name) for name, metric in _named_metrics(metrics).items()}
        self._optimizer = _optimizer_factory(optimizer, lr)
        if scheduler is not None and getattr(scheduler, "optimizer", None) is optimizer:
            scheduler = GivenSchedule(scheduler)
        self._schedule = None if scheduler is None else as_schedule(scheduler)

    def configure_optimizers(self) -> Optimizer:
        """The optimizer given, or built from the model's parameters."""
        if isinstance(self._optimizer, Optimizer):
            return self._optimizer
        made: Optimizer = self._optimizer(self.model.parameters())
        return made

    def configure_schedulers(self) -> Schedule | None:
        """The schedule given, if any."""
        return self._schedule

    def prepare_batch(self, batch: Any) -> tuple[Any, Any]:
        """(inputs, targets) from a pair, a longer tuple (the last is the target) or a mapping."""
        if type(batch) is tuple and len(batch) == 2:  # the common case, without another call
            return batch
        return self._parts(batch)

    def _parts(self, batch: Any) -> tuple[Any, Any]:
        if not isinstance(batch, Mapping):
            return super().prepare_batch(batch)
        inputs = dict(batch)
        keys = (self.target,) if self.target is not None else self.TARGETS
        key = next((key for key in keys if key in inputs), None)
        if self.loss is None:  # the model computes its loss and wants its target among the inputs
            return inputs, inputs.get(key) if key else None
        target = inputs.pop(key) if key else None
        return (next(iter(inputs.values())) if len(inputs) == 1 else inputs), target

    def num_items(self, batch: Any) -> Items:
        """Samples, or the targets where those are counted otherwise than the inputs (time first, packed).

        For cross entropy with class weights, the sum of the weights of the targets; with an `ignore_index` of
        one's own, the targets that count: tensors, which are not waited for. A task that overrides
        `prepare_batch` counts samples, since only it knows where the targets are.
        """
        if not self._finds_targets:
            return super().num_items(batch)
        if type(batch) is tuple and len(batch) == 2:  # the common case, without another call
            inputs, target = batch
        else:
            inputs, target = self._parts(batch)
        if type(target) is not Tensor or not target.dim():
            return super().num_items(batch)
        if self._items is not None and not target.is_floating_point():
            return self._items(self.loss, target)
        if type(inputs) is Tensor:
            samples, targets = inputs.shape, target.shape[0]
            time_first = len(samples) > 1 and samples[1] == targets
            return targets if time_first or not samples else samples[0]
        return target.shape[0] or super().num_items(batch)

    def forward(self, inputs: Any) -> Any:
        """The model's output for prepared inputs."""
        if type(inputs) is Tensor:
            return self.model(inputs)
        if isinstance(inputs, tuple) and not isinstance(inputs, PackedSequence):
            return self.model(*inputs)
        if isinstance(inputs, Mapping):
            return self.model(**inputs)
        return self.model(inputs)

    def compute_loss(self, batch: Any, state: State) -> Loss:
        """Forward, metrics, loss."""
        inputs, targets = self.prepare_batch(batch)
        state.output = output = self.forward(inputs)
        for hook in state.hooks.on_after_forward:
            hook(state)
        for metric in state.metrics.values():
            metric.update(output, targets)
        if isinstance(self.loss, dict):
            return {name: loss(output, targets) for name, loss in self.loss.items()}
        if self.loss is None:
            return _own_loss(output)
        return self.loss(output, targets)  # type: ignore[no-any-return]


def _described(value: Any) -> str:
    return (
        f"the class {value.__name__}"
        if isinstance(value, type)
        else f"{value!r:.80} ({type(value).__name__})"
    )


def _own_loss(output: Any) -> Tensor:
    loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if loss is None:
        raise ValueError(
            f"SupervisedTask has no loss, and the model's output ({type(output).__name__}) has none either: "
            "give loss=..., or return it from the model as output.loss or output['loss']"
        )
    return loss  # type: ignore[no-any-return]


def _built_loss(loss: Any) -> Any:
    """A callable, a dict of callables, or None, from what the user gave."""
    if loss is None:
        return None
    if class_path.is_specification(loss):
        built = class_path.factory(loss, "loss")
        return built() if isinstance(built.func, type) else built  # type: ignore[attr-defined]
    if isinstance(loss, Mapping):
        if not loss:
            raise ValueError("SupervisedTask: loss is an empty mapping; give at least one named loss")
        if TOTAL in loss:
            raise ValueError(
                f"SupervisedTask: one of the named losses is {TOTAL!r}, which their weighted sum is called; "
                "name it otherwise"
            )
        return {str(name): _built_loss(one) for name, one in loss.items()}
    if isinstance(loss, type) and issubclass(loss, nn.Module):
        raise TypeError(
            f"SupervisedTask: loss is the class {loss.__name__}; give an instance: {loss.__name__}()"
        )
    if not callable(loss):
        raise TypeError(
            f"SupervisedTask: loss is {_described(loss)}; give a function or module of (output, target)"
        )
    return with_tensors(loss)


def _checked_weights(weights: Mapping[str, float] | None, loss: Any) -> dict[str, float]:
    names = list(loss) if isinstance(loss, dict) else []
    unknown = [name for name in weights or {} if name not in names]
    if unknown:
        raise ValueError(
            f"SupervisedTask: loss_weights names {unknown}; the named losses are {names or 'none'}"
        )
    return dict(weights or {})


def _named_metrics(metrics: Any) -> Mapping[str, Any]:
    if metrics is None:
        return {}
    if not isinstance(metrics, Mapping):
        raise TypeError(
            f"SupervisedTask: metrics is {_described(metrics)}; give a mapping of names to metrics"
        )
    for name in metrics:
        if not isinstance(name, str) or not name or "/" in name or name == "loss":
            raise ValueError(
                f"SupervisedTask: a metric is named {name!r}; give a word other than 'loss', without '/'"
            )
    return metrics


def _optimizer_factory(optimizer: Any, lr: float | None) -> Any:
    if isinstance(optimizer, Optimizer):
        if lr is not None:
            raise ValueError(
                "SupervisedTask: lr is given, and the optimizer is built already; give lr to the optimizer"
            )
        return optimizer
    if isinstance(optimizer, Mapping):
        optimizer = class_path.factory(optimizer, "optimizer")
    if not callable(optimizer):
        raise TypeError(
            f"SupervisedTask: optimizer is {_described(optimizer)}; give a class such as torch.optim.AdamW, "
            "a functools.partial of one, a configuration, or an optimizer of the model's parameters"
        )
    if lr is None:
        return optimizer
    if "lr" in getattr(optimizer, "keywords", {}):
        raise ValueError("SupervisedTask: lr is given twice, as lr and to the optimizer")
    return functools.partial(optimizer, lr=lr)
