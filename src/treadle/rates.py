"""From fit to fit: a schedule begins each fit from the rate that its optimizer was made with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from treadle.schedules import Schedule
from treadle.state import State
from treadle.task import Task

CYCLED = ("lr", "momentum", "betas")
"""What schedules change in a parameter group."""

Groups = list[dict[str, Any]]


@dataclass(frozen=True)
class Scheduled:
    """What a fit's schedule did to its optimizer.

    Attributes:
        optimizer: the optimizer.
        made: the settings of each parameter group that it was made with.
        left: those that the fit left.
    """

    optimizer: Optimizer
    made: Groups
    left: Groups


def groups_of(optimizers: Mapping[str, Optimizer]) -> dict[str, Groups]:
    """What schedules may change in each optimizer's groups, as it is now."""
    return {name: [_cycled(group) for group in one.param_groups] for name, one in optimizers.items()}


def begin_again(task: Task, schedules: Mapping[str, Schedule]) -> None:
    """Undo what the schedules of the last fit did. What somebody has set by hand since then counts.

    Args:
        task: with its optimizers.
        schedules: those of the fit to come, by the optimizers' names.
    """
    for name, before in task.scheduled.items():
        optimizer = task.optimizers.get(name)
        goes_on = name in schedules and not schedules[name].starts_anew
        if optimizer is not before.optimizer or goes_on:
            continue
        for group, made, left in zip(optimizer.param_groups, before.made, before.left, strict=False):
            for key, value in left.items():
                if key in group and _same(group[key], value):
                    _put(group, key, made[key])
            group.pop("initial_lr", None)  # where torch's schedulers begin, if it is there
    task.scheduled = {}


def remember(state: State, made: Mapping[str, Groups]) -> None:
    """Keep with the task what the fit's schedules did, for `begin_again`.

    Args:
        state: of the fit that is over.
        made: the groups as they were before the schedules.
    """
    for name in state.schedules:
        optimizer = state.optimizers[name]
        groups = [
            {**one, **_base(group)} for one, group in zip(made[name], optimizer.param_groups, strict=False)
        ]
        state.task.scheduled[name] = Scheduled(optimizer, groups, groups_of({name: optimizer})[name])


def _cycled(group: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copied(group[key]) for key in CYCLED if key in group}


def _base(group: Mapping[str, Any]) -> dict[str, Any]:
    """A run that was gone on with may have begun with another rate than this task was given."""
    return {"lr": _copied(group["initial_lr"])} if "initial_lr" in group else {}


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return float(one) == float(other)  # waits for the device, as a fit begins
    return bool(one == other)


def _put(group: dict[str, Any], key: str, value: Any) -> None:
    if isinstance(group[key], Tensor):
        group[key].fill_(value)
    else:
        group[key] = value
