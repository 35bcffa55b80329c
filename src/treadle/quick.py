"""One line from a model to a run."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from treadle.data import as_source
from treadle.preparing import BATCH_SIZE, EVAL_BATCH_SIZE
from treadle.runs import Run
from treadle.supervised_task import SupervisedTask
from treadle.trainer import Trainer


def fit(
    model: nn.Module,
    train: Any,
    val: Any = None,
    *,
    loss: Callable[..., Any] | Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    epochs: int,
    batch_size: int = BATCH_SIZE,
    optimizer: Callable[..., Optimizer] | Mapping[str, Any] | Optimizer = torch.optim.AdamW,
    lr: float | None = None,
    scheduler: Any = None,
    resume: str | None = None,
    **trainer: Any,
) -> Run:
    """Train a model and return the record of the run.

    Args:
        model: any module; trained in place.
        train: (x, y) tensors or arrays, a dataset, a `Loader`, a DataLoader or a Hugging Face dataset.
            Plain data are shuffled.
        val: the same, or None.
        loss, metrics, optimizer, lr, scheduler: see `SupervisedTask`.
        epochs: passes over the training data.
        batch_size: samples in an optimizer step, where `train` is not batched already.
        resume: see `Trainer.fit`.
        **trainer: further arguments of `Trainer`.

    Raises:
        ValueError, TypeError: an argument is out of range or of another kind; nothing is trained then.
    """
    known = inspect.signature(Trainer).parameters
    for name in trainer:
        if name not in known or name == "max_steps":
            close = difflib.get_close_matches(name, [*known, *inspect.signature(fit).parameters], n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise TypeError(f"treadle.fit: there is no argument {name!r}{hint}")
    task = SupervisedTask(model, loss, optimizer, lr, scheduler, metrics)
    runner = Trainer(max_epochs=epochs, **trainer)
    train = as_source(train, batch_size=batch_size, shuffle=True, name="train")
    if val is not None:
        val = as_source(val, batch_size=max(batch_size, EVAL_BATCH_SIZE), name="val")
    return runner.fit(task, train, val, resume=resume)
