"""What a checkpoint holds: everything that the rest of the run depends on."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from treadle import rng
from treadle.checkpoint.shard import Shard
from treadle.described import name_of
from treadle.state import State

TENSORS = (Tensor, Shard)
_ADDED = {"params", "initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum", "param_names"}
"""What a group has besides an optimizer's own settings; some of it is added by schedules."""


def capture(state: State) -> dict[str, Any]:
    """The whole state of a run at a step boundary, as one tree; tensors are the live ones, not copies."""
    strategy = state.engine.strategy
    model = strategy.model_to_save(state.task)
    own = {
        "batches": state.train_batches.state_dict(),
        "metrics": {name: metric.state_dict() for name, metric in state.metrics.items()},
        "rng": rng.capture(),
    }
    ranks = state.engine.gather_shares(own)  # on one process this is `own` itself
    return {
        "model": {name: value for name, value in model.items() if isinstance(value, TENSORS)},
        "model_extra": {name: value for name, value in model.items() if not isinstance(value, TENSORS)},
        "optimizers": {
            name: strategy.optimizer_to_save(state.task, optimizer)
            for name, optimizer in state.optimizers.items()
        },
        "schedules": {name: schedule.state_dict() for name, schedule in state.schedules.items()},
        "precision": state.engine.precision.state_dict(),
        "progress": state.progress.state_dict(),
        "callbacks": state.hooks.state_dict(),
        "values": state.values.state_dict(),
        "results": dict(state.results),
        "recorded": state.run.counts(),
        "ended": state.ended,
        # Cleared at every boundary, unless the task's own zero_grad keeps something of them.
        "gradients": {n: p.grad for n, p in state.task.named_parameters() if p.grad is not None},
        "seed": state.seed,
        "setup": state.setup,
        **own,
        "ranks": ranks[1:],
    }


def check(state: State, contents: dict[str, Any]) -> None:
    """Raise a ValueError unless a run can go on with these contents; nothing is changed.

    Raises:
        ValueError: they are of a task with other optimizers or schedules, or of another precision.
    """
    for kind, present in (("optimizers", state.optimizers), ("schedules", state.schedules)):
        if set(contents[kind]) != set(present):
            raise ValueError(
                f"the checkpoint has the {kind} {sorted(contents[kind])}, the task {sorted(present)}: "
                "resume with the configuration that the run was started with"
            )
    recorded = contents.get("setup", {}).get("optimizers", {})
    for name, optimizer in state.optimizers.items():
        check_optimizer(name, optimizer, contents["optimizers"][name], recorded.get(name, {}).get("class"))
    state.engine.precision.check_state(contents["precision"])


def restore(state: State, contents: dict[str, Any]) -> None:
    """Put a run back to what `capture` saw. Generators come last, since building things draws from them.

    Raises:
        ValueError: the checkpoint is of a task with other parameters; see also `check`, which comes first.
    """
    strategy = state.engine.strategy
    load_model(state, contents)
    for name, optimizer in state.optimizers.items():
        strategy.load_optimizer(state.task, optimizer, contents["optimizers"][name])
    for name, schedule in state.schedules.items():
        schedule.load_state_dict(contents["schedules"][name])
    state.engine.precision.load_state_dict(contents["precision"])
    state.progress.load_state_dict(contents["progress"])
    state.current_step = state.progress.step  # an epoch's end that comes next belongs to this step
    state.ended = contents["ended"]
    own, others = _share(state, contents)
    state.train_batches.load_state_dict(own["batches"])
    state.hooks.load_state_dict(contents["callbacks"])
    state.values.load_state_dict(contents["values"])
    for name, metric in state.metrics.items():
        if name in own["metrics"]:
            metric.load_state_dict(own["metrics"][name])
            metric.merge([other["metrics"][name] for other in others])
    state.results = dict(contents["results"])
    state.latest = dict(contents["results"])
    if strategy.keeps_gradients:
        for name, parameter in state.task.named_parameters():
            if name in contents["gradients"]:
                parameter.grad = contents["gradients"][name].to(parameter.device)
    rng.restore(own["rng"])


def check_optimizer(name: str, optimizer: Optimizer, saved: dict[str, Any], kind: str | None) -> None:
    """Raise a ValueError that says what differs unless an optimizer can go on with a saved state.

    Args:
        name: what the task calls it.
        optimizer: the one that is to go on.
        saved: the state in the checkpoint.
        kind: the class that it was saved of; None where the checkpoint does not say it.
    """
    own, advice = name_of(optimizer), "resume with the optimizer that the run was started with"
    present, former = optimizer.param_groups, saved["param_groups"]
    settings, former_settings = ({*groups[0]} - _ADDED for groups in (present, former))
    # A later torch may add settings; another class lacks some too.
    is_other = bool(settings - former_settings) and bool(former_settings - settings)
    if kind is not None:
        is_other = kind.rpartition(".")[2] != own.rpartition(".")[2]
    if is_other:
        said = kind or f"one with {', '.join(sorted(former_settings - settings))}"
        raise ValueError(f"the checkpoint's optimizer {name!r} is {said}, the task's is {own}: {advice}")
    if len(present) != len(former):
        raise ValueError(
            f"the checkpoint's optimizer {name!r} has {len(former)} parameter groups, the task's has "
            f"{len(present)}: make all of them in configure_optimizers, since those that a hook adds later "
            "cannot be resumed (treadle.callbacks.Freezing keeps parameters still until their time comes)"
        )
    sizes, former_sizes = ([len(group["params"]) for group in groups] for groups in (present, former))
    if sizes != former_sizes:
        raise ValueError(
            f"the checkpoint's optimizer {name!r} has groups of {former_sizes} parameters, the task's of "
            f"{sizes}: {advice}"
        )


def _share(state: State, contents: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the saved ranks had of their own for this rank to go on with, and the others it takes over.

    On as many processes as saved, each goes on with its own. On another number, what was counted goes to
    rank 0, and each rank that was not there gets generators that follow from rank 0's.
    """
    rank, world_size = state.engine.strategy.data_rank, state.engine.strategy.data_size
    first = {name: contents[name] for name in ("batches", "metrics", "rng")}
    saved = [first, *contents.get("ranks", [])]
    if len(saved) == world_size:
        return saved[rank], []
    if rank == 0:
        return first, saved[1:]
    own = saved[rank] if rank < len(saved) else {**first, "rng": rng.derived(first["rng"], rank)}
    return {**own, "batches": first["batches"], "metrics": {}}, []


def load_model(state: State, contents: dict[str, Any]) -> None:
    """Put the task's parameters and buffers back.

    Raises:
        ValueError: names or shapes are not this task's; the text lists them.
    """
    try:
        state.engine.strategy.load_model(state.task, {**contents["model"], **contents["model_extra"]})
    except RuntimeError as error:
        raise ValueError(f"the checkpoint is of another model: {error}") from error
