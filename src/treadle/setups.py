"""What a run is made of, as plain data for its record; and what a resume that finds it changed says."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from treadle.data import Source
from treadle.described import attributes_of, described, name_of
from treadle.events import Callback
from treadle.rates import Groups
from treadle.runs.compare import tree_changes
from treadle.state import State

EXECUTION = ("foreach", "fused", "capturable", "differentiable")
"""Settings of torch's optimizers that change how, not what they compute."""

_NO_SETTINGS = ("params", "param_names", "initial_lr", *EXECUTION)
_TRAINER = ("accumulate", "clip_norm", "clip_value")
_SAMPLERS = ("weights", "lengths", "sampler", "batch_sampler")
_ORDER = ("class", "samples", "batch_size", "shuffle", "seed", *_SAMPLERS)
_DATA = (*_ORDER, "drop_last")
_DOTTED = re.compile(r"[\w<>]+(\.[\w<>]+)+")
_NEW_RUN = "start a new run from the weights (treadle.load_model)"


def setup_of(
    state: State,
    trainer: Mapping[str, Any],
    sources: Mapping[str, Source],
    callbacks: Iterable[Callback],
    made: Mapping[str, Groups],
) -> dict[str, Any]:
    """What a run is made of: {"trainer", "task", "optimizers", "schedules", "data"}, each by name.

    It is plain data that JSON can hold, the same for equal runs on any machine.

    Args:
        state: with task, optimizers and schedules.
        trainer: the trainer's arguments.
        sources: the data by name, "train" among them.
        callbacks: those that the user gave.
        made: the optimizers' groups as they were before the schedules; see `treadle.rates`.
    """
    return {
        "trainer": {
            **trainer,
            "processes": state.engine.strategy.world_size,
            "callbacks": [callback.name for callback in callbacks],
        },
        "task": _task(state.task, state.engine.strategy.kind_of),
        "optimizers": {name: _optimizer(one, made[name]) for name, one in state.optimizers.items()},
        "schedules": {name: schedule.settings for name, schedule in state.schedules.items()},
        "data": {name: source.settings() for name, source in sources.items()},
    }


def counted(setup: Mapping[str, Any]) -> dict[str, Any]:
    """The part of it that the rest of a run depends on: what a checkpoint holds and a resume compares."""
    trainer, task, train = setup["trainer"], setup["task"], setup["data"]["train"]
    return {
        "trainer": {name: trainer[name] for name in _TRAINER},
        "task": {"loss": _stable(task["loss"]), "loss_weights": task["loss_weights"]},
        "optimizers": setup["optimizers"],
        "schedules": setup["schedules"],
        "data": {name: train[name] for name in _DATA if name in train},
    }


def go_on(contents: Mapping[str, Any], setup: dict[str, Any], state: State) -> dict[str, Any]:
    """Compare what a checkpoint was made with and what is given now, and say what differs and what counts.

    Optimizers and torch's schedulers go on with their own settings; all else counts as it is given now.

    Args:
        contents: of the checkpoint; one that says nothing of its setup is not compared.
        setup: what is given; where the checkpoint decides, what counts is put into it.
        state: of the run that goes on.

    Returns:
        What differs, by dotted name: [in the checkpoint, given now].

    Raises:
        ValueError: the checkpoint is inside an epoch, and the order of the samples is another one now; or
            a schedule is of another class.
    """
    if not contents.get("setup"):
        return {}
    before, now = _shortened(contents["setup"]), _shortened(counted(setup))
    _check_order(contents, before["data"], now["data"], state.seed)
    _check_schedules(before["schedules"], now["schedules"])
    now["optimizers"] = {
        name: _as_it_was(one, before["optimizers"][name], contents["optimizers"][name]["param_groups"])
        for name, one in now["optimizers"].items()
    }
    kept = _kept(before, now)
    changed = tree_changes(before, now)
    taken = {name: pair for name, pair in changed.items() if name not in kept}
    setup["optimizers"] = contents["setup"]["optimizers"]
    for name, schedule in contents["setup"]["schedules"].items():
        setup["schedules"][name] |= _restored(schedule)
    said = []
    if kept:
        stay = ", ".join(f"{name} stays {old} ({new} is given)" for name, (old, new) in kept.items())
        said.append(
            f"{stay}: an optimizer and torch's schedulers go on with their own settings from the checkpoint; "
            f"to have others, {_NEW_RUN}, or, without a schedule, set them in a callback's on_fit_start"
        )
    if taken:
        count = ", ".join(f"{name} was {old} and is {new} from here on" for name, (old, new) in taken.items())
        said.append(f"{count}; resuming is exact only where nothing changed")
    if said and state.is_main:
        warnings.warn(f"resume: {'. And '.join(said)}", stacklevel=4)
    return {name: list(pair) for name, pair in changed.items()}


def _check_order(
    contents: Mapping[str, Any], before: Mapping[str, Any], now: Mapping[str, Any], seed: int
) -> None:
    batch = contents["progress"]["batch"]
    pairs = [(name, before.get(name), now.get(name)) for name in _ORDER]
    changed = [(name, old, new) for name, old, new in pairs if old != new]
    is_random = now.get("shuffle") or now.get("weights")
    if is_random and now.get("seed") is None and contents["seed"] != seed:
        changed.append(("the seed", contents["seed"], seed))
    if batch and changed:
        epoch = contents["progress"]["epoch"] + 1
        said = ", ".join(f"{name} was {old} and is {new}" for name, old, new in changed)
        raise ValueError(
            f"resume: the checkpoint is inside epoch {epoch}, after {batch} of its batches, and the training "
            f"data are others: {said}. It would see some samples twice and others never. Give the same until "
            f"it is over, go on from a checkpoint between two epochs, or {_NEW_RUN}"
        )


def _check_schedules(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for name, schedule in now.items():
        old = before.get(name, schedule)
        kinds = [one.get("scheduler", one.get("curve", "")) for one in (old, schedule)]
        if kinds[0] != kinds[1] and not ("curve" in old and "curve" in schedule):
            raise ValueError(
                f"resume: the schedule of {name!r} was {kinds[0]} and is {kinds[1]}, which cannot go on with "
                f"its state: give the one that the run was started with, or {_NEW_RUN}"
            )


def _as_it_was(now: Any, before: Any, saved: list[dict[str, Any]]) -> Any:
    """An optimizer without differences that the run itself has made, a callback of it for one.

    Where a task goes on in its own process, its optimizer has what the run left, as the checkpoint has.
    """
    groups = [
        {
            name: old.get(name, value) if described(group.get(name)) == value else value
            for name, value in new.items()
        }
        for new, old, group in zip(now["groups"], before["groups"], saved, strict=False)
    ]
    return {**now, "groups": groups}


def _kept(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What the checkpoint decides, by dotted name: optimizers, and torch's schedulers."""
    return tree_changes(
        *(
            {
                "optimizers": one["optimizers"],
                "schedules": {name: _restored(schedule) for name, schedule in one["schedules"].items()},
            }
            for one in (before, now)
        )
    )


def _restored(schedule: Mapping[str, Any]) -> dict[str, Any]:
    """What a schedule takes back from a checkpoint: nothing for a curve, no functions for torch's."""
    is_torch = "scheduler" in schedule
    return {name: value for name, value in schedule.items() if is_torch and name != "lr_lambdas"}


def _shortened(tree: Any) -> Any:
    """The same with the last part of every dotted name: where a program keeps a function is no difference."""
    if isinstance(tree, Mapping):
        return {name: _shortened(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [_shortened(value) for value in tree]
    return tree.rpartition(".")[2] if isinstance(tree, str) and _DOTTED.fullmatch(tree) else tree


def _stable(loss: Any) -> Any:
    """A loss without the attributes of a user's own class, which may count or remember something."""
    if not isinstance(loss, Mapping):
        return loss
    if isinstance(loss.get("class"), str):
        return loss if loss["class"].startswith("torch.") else loss["class"]
    return {name: _stable(one) for name, one in loss.items()}


def _task(task: Any, kind_of: Callable[[nn.Module], type[nn.Module]]) -> dict[str, Any]:
    parameters = list(task.parameters())
    own = {name: value for name, value in vars(task).items() if isinstance(value, (bool, int, float, str))}
    loss = vars(task)["loss"] if "loss" in vars(task) else task._modules.get("loss")
    return {
        "class": name_of(type(task)),
        "modules": {name: name_of(kind_of(child)) for name, child in task.named_children()},
        "parameters": sum(parameter.numel() for parameter in parameters),
        "trained": sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        "loss": described(loss),
        "loss_weights": described(task.loss_weights),
        "metrics": {name: _metric(metric) for name, metric in task.metrics.items()},
        "settings": described({k: v for k, v in own.items() if not k.startswith("_") and k != "training"}),
    }


def _metric(metric: Any) -> dict[str, Any]:
    counted = [name for name, value in vars(metric).items() if isinstance(value, Tensor)]
    return {"class": name_of(metric), **attributes_of(metric, depth=0, without=("device", *counted))}


def _optimizer(optimizer: Any, made: Groups) -> dict[str, Any]:
    groups = [
        {
            "parameters": sum(parameter.numel() for parameter in group["params"]),
            **{name: described(value) for name, value in group.items() if name not in _NO_SETTINGS},
            **described(first),
        }
        for group, first in zip(optimizer.param_groups, made, strict=True)
    ]
    return {"class": name_of(optimizer), "groups": groups}
