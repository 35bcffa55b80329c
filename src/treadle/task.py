"""What is learned, and what one batch means."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from treadle import class_path
from treadle.data import batch_items, concatenate
from treadle.engine import Share
from treadle.events import CancelBatch
from treadle.metrics import Metric, as_metric
from treadle.schedules import Schedule, as_schedule
from treadle.state import State
from treadle.strategies.single import Items

Loss = Tensor | Mapping[str, Tensor]


class Task(nn.Module):
    """What is learned, and what one batch means. Subclass it and override the level you need.

    The least a subclass has is `compute_loss` and `configure_optimizers`; `SupervisedTask` has both for a
    model, a loss and an optimizer. Every method below is called by the one above it, with `state` for
    what the loop knows.

    Attributes:
        optimizers: by name, from the time a fit starts.
        metrics: templates by name; every mode (train, val, test) counts in copies of its own.
        loss_weights: the weight of each named loss in the sum that `combine` makes; 1 where it is missing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.optimizers: dict[str, Optimizer] = {}
        self.metrics: dict[str, Metric] = {}
        self.loss_weights: dict[str, float] = {}

    # -- what to override ---------------------------------------------------------------------------------

    def configure_optimizers(self) -> Optimizer | Mapping[str, Optimizer]:
        """The optimizer of this task's parameters, or several by name. Called when a fit starts."""
        raise NotImplementedError(f"{type(self).__name__} must define configure_optimizers")

    def configure_schedulers(self) -> Any:
        """The schedule of the only optimizer, or several by the optimizers' names, or None."""
        return None

    def compute_loss(self, batch: Any, state: State) -> Loss:
        """The mean loss over the batch's items: a scalar, or several by name."""
        raise NotImplementedError(f"{type(self).__name__} must define compute_loss")

    def predict_step(self, batch: Any, state: State) -> Any:
        """What the model says of a batch: a tensor with a row for each sample, or a tree of them."""
        inputs, _ = self.prepare_batch(batch)
        return self.postprocess(self.forward(inputs))

    def num_items(self, batch: Any) -> Items:
        """How many items the batch's loss is the mean of: samples by default; for tokens, count tokens.

        A tensor is fine and stays on the device.
        """
        return batch_items(batch)

    def prepare_batch(self, batch: Any) -> tuple[Any, Any]:
        """The batch as (inputs, targets); targets is None where there are none."""
        if isinstance(batch, (tuple, list)) and len(batch) >= 2:
            return (batch[0] if len(batch) == 2 else tuple(batch[:-1])), batch[-1]
        if isinstance(batch, (tuple, list)) and len(batch) == 1:
            return batch[0], None
        return batch, None

    def postprocess(self, output: Any) -> Any:
        """From the model's output to what `predict` returns; as it is, by default."""
        return output

    def decide(self, outputs: Any, targets: Any) -> Any:
        """From outputs [N, ...] to predictions, as `Trainer.results` gives them.

        By default: where targets are whole numbers, the class with the highest score (dimension 1), or for
        one score a sample whether it is above 0; anything else is a value already.

        Args:
            outputs: the model's outputs for all samples.
            targets: their targets, or None.
        """
        if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor) or targets.is_floating_point():
            return outputs
        if outputs.ndim > 1 and outputs.shape[1] > 1 and outputs.ndim == targets.ndim + 1:
            return outputs.argmax(dim=1)
        return (outputs > 0).reshape(targets.shape).to(targets.dtype)

    def join(self, batches: list[Any]) -> Any:
        """All batches' outputs (targets, metadata, ...) as one, in order: concatenated, by default."""
        return concatenate(batches)

    def metadata(self, batch: Any) -> Mapping[str, Any]:
        """What else to keep of each sample in `Trainer.results`, by name; nothing by default."""
        return {}

    def load_sample(self, path: str) -> Any:
        """Read one sample for `predict` from a file."""
        raise NotImplementedError(
            f"{type(self).__name__} must define load_sample(path) to predict from a path"
        )

    def store_result(self, result: Any, path: str) -> None:
        """Write one result of `predict` to a file."""
        raise NotImplementedError(
            f"{type(self).__name__} must define store_result(result, path) to store results"
        )

    # -- one step, level by level ------------------------------------------------------------------------

    def items(self, window: Sequence[Any]) -> list[Items]:
        """How many items each micro-batch of a window has."""
        return [self.num_items(batch) for batch in window]

    def train_step(self, window: Sequence[Any], state: State) -> None:
        """One optimizer step over a window of micro-batches.

        for each micro-batch:
            on_batch_start; loss = combine(compute_loss); on_after_loss
            backward; on_after_backward; on_batch_end
        optimizer_step
        """
        hooks = state.hooks
        for batch, share in state.engine.microbatches(window, self.items(window)):
            state.batch = batch
            try:
                for hook in hooks.on_batch_start:
                    hook(state)
                with state.engine.autocast():
                    state.loss = self.combine(self.compute_loss(state.batch, state), state)
                for hook in hooks.on_after_loss:
                    hook(state)
                self.backward(state.loss, share, state)
                for hook in hooks.on_after_backward:
                    hook(state)
                for hook in hooks.on_batch_end:
                    hook(state)
            except CancelBatch:
                continue
        self.optimizer_step(state)

    def combine(self, loss: Loss, state: State) -> Tensor:
        """One scalar from the loss or the weighted losses, each logged under its name.

        Raises:
            ValueError: a loss is not a scalar.
        """
        if isinstance(loss, Mapping):
            named = {name: _scalar(value, f"the loss {name!r}") for name, value in loss.items()}
            for name, value in named.items():
                state.log(name, value)
            terms = [value * self.loss_weights.get(name, 1.0) for name, value in named.items()]
            loss = functools.reduce(torch.add, terms)
        elif not isinstance(loss, Tensor) or loss.ndim:
            _scalar(loss, "the loss")
        state.log("loss", loss)
        return loss

    def backward(self, loss: Tensor, share: Share, state: State) -> None:
        """Add the gradient of the micro-batch's part of the step's loss."""
        state.engine.backward(loss, share)

    def optimizer_step(self, state: State) -> None:
        """Step every optimizer and clear the gradients."""
        state.engine.step(*self.optimizers.values())

    def eval_step(self, batch: Any, state: State) -> None:
        """Log the loss of a batch and count its metrics; gradients are off."""
        self.combine(self.compute_loss(batch, state), state)

    def compile_modules(self) -> Sequence[nn.Module]:
        """The modules that `Trainer(compile=True)` compiles in place: the direct children, by default."""
        return list(self.children())


def _scalar(loss: Any, what: str) -> Tensor:
    if not isinstance(loss, Tensor):
        raise TypeError(
            f"{what} is {type(loss).__name__}; it must be a tensor with one element and no dimensions"
        )
    if loss.ndim:
        raise ValueError(
            f"{what} has shape {tuple(loss.shape)}; it must be a scalar, the mean over the batch's items "
            "(a loss with reduction='none' wants .mean())"
        )
    return loss


class SupervisedTask(Task):
    """A model, a loss of (output, target), an optimizer.

    Args:
        model: any module. A batch (x, y) calls model(x); (a, b, y) calls model(a, b); a mapping calls
            model(**inputs) with all but the target (or model(x) when only one is left).
        loss: a function or module of (output, target) that returns the mean over the batch, or a mapping
            of names to such functions; or a configuration {"class_path": ..., "init_args": ...}. None where
            the model computes its own loss and returns it as `output.loss` or `output["loss"]`.
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
        self.loss_weights = _checked_weights(loss_weights, self.loss)
        self.metrics = {name: as_metric(metric, name) for name, metric in _named_metrics(metrics).items()}
        self._optimizer = _optimizer_factory(optimizer, lr)
        if scheduler is not None and getattr(scheduler, "optimizer", None) is optimizer:
            given = scheduler  # built already, for this very optimizer
            scheduler = Schedule(lambda _: given)
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
        if not isinstance(batch, Mapping):
            return super().prepare_batch(batch)
        inputs = dict(batch)
        keys = (self.target,) if self.target is not None else self.TARGETS
        key = next((key for key in keys if key in inputs), None)
        if self.loss is None:  # the model computes its loss and wants its target among the inputs
            return inputs, inputs.get(key) if key else None
        target = inputs.pop(key) if key else None
        return (next(iter(inputs.values())) if len(inputs) == 1 else inputs), target

    def forward(self, inputs: Any) -> Any:
        """The model's output for prepared inputs."""
        if isinstance(inputs, tuple):
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
        return {str(name): _built_loss(one) for name, one in loss.items()}
    if isinstance(loss, type) and issubclass(loss, nn.Module):
        raise TypeError(
            f"SupervisedTask: loss is the class {loss.__name__}; give an instance: {loss.__name__}()"
        )
    if not callable(loss):
        raise TypeError(
            f"SupervisedTask: loss is {_described(loss)}; give a function or module of (output, target)"
        )
    return loss


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
