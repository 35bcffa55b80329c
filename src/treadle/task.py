"""What is learned, and what one batch means."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from treadle.data import batch_items, concatenate
from treadle.engine import Share
from treadle.events import CancelBatch
from treadle.metrics import Metric
from treadle.state import State
from treadle.strategy import Items

Loss = Tensor | Mapping[str, Tensor]

TOTAL = "loss"
"""What the scalar that is trained on is logged as."""


class Task(nn.Module):
    """What is learned, and what one batch means. Subclass it and override the level you need.

    The least a subclass has is `compute_loss` and `configure_optimizers`; `SupervisedTask` has both for a
    model, a loss and an optimizer. Every method below is called by the one above it, with `state` for
    what the loop knows.

    Attributes:
        optimizers: by name, from the time a fit starts.
        scheduled: what the schedules of the last fit did to them; see `treadle.composing`.
        metrics: templates by name; every mode (train, val, test) counts in copies of its own.
        loss_weights: the weight of each named loss in the sum that `combine` makes; 1 where it is missing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.optimizers: dict[str, Optimizer] = {}
        self.scheduled: dict[str, Any] = {}
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
        if type(batch) is tuple and type(batch[0]) is Tensor and batch[0].dim():
            return batch[0].shape[0]  # the common case, without another call
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
            ValueError: a loss is not a scalar, or one of several is named "loss".
        """
        if type(loss) is not Tensor and isinstance(loss, Mapping):
            if TOTAL in loss:
                raise ValueError(
                    f"{type(self).__name__}.compute_loss returned losses named {', '.join(map(repr, loss))}: "
                    f"all of them are trained on, and their weighted sum is called {TOTAL!r}. Name this one "
                    "otherwise; a value to look at goes to state.log(name, value)"
                )
            named = {name: _scalar(value, f"the loss {name!r}") for name, value in loss.items()}
            for name, value in named.items():
                state.log(name, value)
            terms = [value * self.loss_weights.get(name, 1.0) for name, value in named.items()]
            loss = functools.reduce(torch.add, terms)
        elif not isinstance(loss, Tensor) or loss.ndim:
            _scalar(loss, "the loss")
        state.log(TOTAL, loss)
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
