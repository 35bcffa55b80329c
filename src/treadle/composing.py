"""From a task and its data to what the loops need: optimizers, schedules, the state. Checks come first."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.optim import Optimizer

from treadle.schedules import BoundSchedule, Horizon, PlateauSchedule, Schedule, as_schedule
from treadle.state import State
from treadle.task import Task

MODES = ("train", "val", "test", "predict")
"""What results are named after; further data have other names."""


def check_task(task: object) -> None:
    """Raise a TypeError that says what to do unless `task` is a `Task`."""
    if not isinstance(task, Task):
        hint = (
            " Wrap a model: treadle.SupervisedTask(model, loss=...)."
            if isinstance(task, torch.nn.Module)
            else ""
        )
        raise TypeError(f"Trainer: task is {type(task).__name__}; it must be a treadle.Task.{hint}")


def check_further(names: Iterable[str]) -> None:
    """Raise a ValueError unless these names can be given to further data to evaluate on."""
    for name in names:
        if not isinstance(name, str) or not name or "/" in name or name in MODES:
            raise ValueError(
                f"Trainer.fit: also names data {name!r}; give a word without '/' "
                f"other than {', '.join(MODES)}"
            )


def check_evaluation(state: State) -> None:
    """Raise a TypeError, before training, where there are data to evaluate and the task cannot."""
    kind = type(state.task)
    if state.evaluations and kind.eval_step is Task.eval_step and kind.compute_loss is Task.compute_loss:
        raise TypeError(
            f"there are data to evaluate ({', '.join(state.evaluations)}), and {kind.__name__} defines "
            "neither compute_loss nor eval_step"
        )


def optimizers_of(task: Task) -> dict[str, Optimizer]:
    """The task's optimizers by name: those of an earlier fit while they still fit, or new ones.

    Raises:
        TypeError: `configure_optimizers` returned something else, or what the task cannot step.
        ValueError: one holds parameters that are not the task's, or none holds any to train.
    """
    own = {id(parameter) for parameter in task.parameters()}
    kept = task.optimizers
    if not kept or not all(_holds_only(optimizer, own) for optimizer in kept.values()):
        made = task.configure_optimizers()
        kept = {"optimizer": made} if not isinstance(made, Mapping) else dict(made)
    for name, optimizer in kept.items():
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                f"{type(task).__name__}.configure_optimizers: {name!r} is {type(optimizer).__name__}; "
                "return a torch.optim.Optimizer, or a mapping of names to them"
            )
        if not _holds_only(optimizer, own):
            raise ValueError(
                f"the optimizer {name!r} ({type(optimizer).__name__}) holds parameters that are not the "
                "task's and would train another model; build it from this task's parameters"
            )
    for name, optimizer in kept.items():
        if _wants_closure(optimizer) and not _gives_closures(task):
            raise TypeError(
                f"the optimizer {name!r} ({type(optimizer).__name__}) evaluates the loss several times in a "
                "step: make the task a treadle.SupervisedClosureTask, or override optimizer_step"
            )
    if not any(p.requires_grad for o in kept.values() for g in o.param_groups for p in g["params"]):
        raise ValueError("no optimizer holds a parameter that requires a gradient: there is nothing to train")
    for optimizer in kept.values():
        prefer_fused(optimizer, task)
    task.optimizers = kept
    return kept


def _wants_closure(optimizer: Optimizer) -> bool:
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    return closure is not None and closure.default is closure.empty


def _gives_closures(task: Task) -> bool:
    kind = type(task)
    return kind.train_step is not Task.train_step or kind.optimizer_step is not Task.optimizer_step


FUSED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad)
FUSED_DEVICES = ("cpu", "cuda")


def prefer_fused(optimizer: Optimizer, task: Task) -> None:
    """Let torch's own optimizers use their fused kernels where the user did not choose.

    The same update in one kernel, two to five times as fast. Left alone: optimizers with a choice of
    `fused` or `foreach`, with state, sparse gradients, learning rates in tensors, other classes, and SGD
    with momentum, whose fused kernel fails when a parameter gets its first gradient later than others.
    """
    if type(optimizer) not in FUSED or optimizer.state:
        return
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    # DTensors: only Adam's kernels know what to do with them.
    known = issubclass(type(optimizer), torch.optim.Adam) or not any(
        hasattr(p, "full_tensor") for p in parameters
    )
    dense = known and not any(getattr(module, "sparse", False) for module in task.modules())
    placed = all(p.device.type in FUSED_DEVICES and p.is_floating_point() for p in parameters)
    free = all(
        group.get("fused") is None
        and group.get("foreach") is None
        and not group.get("differentiable")
        and not group.get("momentum")
        and not isinstance(group["lr"], torch.Tensor)
        for group in optimizer.param_groups
    )
    if dense and placed and free:
        for group in optimizer.param_groups:
            group["fused"] = True
        _leave_sparse(optimizer)


def _leave_sparse(optimizer: Optimizer) -> None:
    """Undo the choice before the first step if a gradient turns out to be sparse, which no kernel takes."""

    def look(*_: Any) -> None:
        handle.remove()
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        if any(gradient is not None and gradient.is_sparse for gradient in gradients):
            for group in optimizer.param_groups:
                group["fused"] = None

    handle = optimizer.register_step_pre_hook(look)


def _holds_only(optimizer: Optimizer, own: set[int]) -> bool:
    return all(id(p) in own for group in optimizer.param_groups for p in group["params"])


def set_horizon(state: State) -> None:
    """Work out how many optimizer steps the run will take, where the data have a length."""
    if state.train_batches.length is not None:
        state.steps_per_epoch = -(-state.train_batches.length // state.accumulate)
    if state.max_steps is not None:
        state.total_steps = state.max_steps
    elif state.steps_per_epoch is not None and state.max_epochs is not None:
        state.total_steps = state.steps_per_epoch * state.max_epochs


def schedules_of(task: Task, state: State) -> dict[str, Schedule]:
    """The task's schedules by the names of the run's optimizers.

    Raises:
        ValueError: a name that is no optimizer's.
    """
    configured = task.configure_schedulers()
    if configured is None:
        return {}
    if not isinstance(configured, Mapping) or "class_path" in configured:
        if len(state.optimizers) != 1:
            raise ValueError(
                f"configure_schedulers returned one schedule for {len(state.optimizers)} optimizers; "
                f"return a mapping with some of the names {sorted(state.optimizers)}"
            )
        configured = {next(iter(state.optimizers)): configured}
    unknown = sorted(set(configured) - set(state.optimizers))
    if unknown:
        raise ValueError(
            f"configure_schedulers names {unknown}; the optimizers are {sorted(state.optimizers)}"
        )
    return {name: as_schedule(one) for name, one in configured.items()}


def bound_schedules(schedules: Mapping[str, Schedule], state: State) -> dict[str, BoundSchedule]:
    """The schedules at work on the run's optimizers.

    Raises:
        ValueError: one waits for a result that never comes.
    """
    horizon = Horizon(state.total_steps, state.steps_per_epoch, state.max_epochs)
    bound = {name: one.bind(state.optimizers[name], horizon) for name, one in schedules.items()}
    for schedule in bound.values():
        if isinstance(schedule, PlateauSchedule):
            every = state.eval_epochs
            schedule.check(
                has_validation="val" in state.evaluations and every is not None,
                after_epochs=every is not None and (every.epochs or every.seconds) is not None,
            )
    return bound
