"""How many samples go through the model at once: as many as fit into memory."""

from __future__ import annotations

import gc
from typing import Any

import torch

from treadle.data import Source, batch_items
from treadle.finders.sources import batch_of, check_repeatable
from treadle.finders.untouched import untouched
from treadle.task import Task
from treadle.trainer import Trainer

_MESSAGES = (
    "out of memory",
    "can't allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""What libraries say who have no exception of their own for it."""


def find_batch_size(trainer: Trainer, task: Task, train: Any, *, start: int = 2, most: int = 4096) -> int:
    """The largest micro-batch whose training fits into memory, for `Trainer(microbatch_size=...)`.

    Doubles the size until memory runs out, then bisects. Each size is tried with two steps of two
    micro-batches, so that gradients and the optimizer's state lie beside the activations. Task, data,
    generators and trainer are afterwards exactly as they were; see `find_learning_rate`. On the host, where
    memory does not run out but grows slow, keep `most` small.

    Args:
        trainer: how to train (device, precision).
        task: what is trained.
        train: the training data, as for `Trainer.fit`. Samples of different size: the first ones are tried.
        start: the first size.
        most: no size is above this, nor above the number of samples.

    Raises:
        ValueError: an argument is out of range.
        torch.OutOfMemoryError: a single sample does not fit.
    """
    for name, value in (("start", start), ("most", most)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"find_batch_size: {name} is {value!r}; it must be a whole number from 1")
    check_repeatable(train)
    runner = trainer.replace(
        max_epochs=None,
        max_steps=2,
        accumulate=2,
        microbatch_size=None,
        run_dir=None,
        checkpoint=None,
        callbacks=[],
        progress=False,
        eval_every=None,
        seed=trainer.seed or 0,
    )
    if runner.device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call] # so that its generators are there to be kept
    with untouched(task, train, trainer.precision):
        # Attributes of the task are put back like everything else. No schedule: the run has no real length.
        task.configure_schedulers = lambda: None  # type: ignore[method-assign]
        return _search(runner, task, train, start, most)


def _search(runner: Trainer, task: Task, train: Any, start: int, most: int) -> int:
    fitting, failing, size = 0, 0, min(start, most)
    while True:
        batch = batch_of(train, size, runner.seed or 0)
        if batch_items(batch) < size:
            size = most = batch_items(batch)  # there are no more
        if size == fitting or _fits(runner, task, batch):
            fitting = size
        elif size == 1:
            raise torch.OutOfMemoryError("find_batch_size: training on a single sample runs out of memory")
        else:
            failing = size
        if fitting == most or failing - fitting == 1:
            return fitting
        size = (fitting + failing) // 2 if failing else min(2 * fitting, most)


def _fits(runner: Trainer, task: Task, batch: Any) -> bool:
    try:
        runner.fit(task, Source([batch] * 4))
        return True
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    gc.collect()  # the exception is gone by now, and with its frames what they held
    if runner.device.type == "cuda":
        torch.cuda.empty_cache()
    return False


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _MESSAGES)
