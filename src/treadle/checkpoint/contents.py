"""What a checkpoint holds: everything that the rest of the run depends on."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from treadle import rng
from treadle.state import State


def capture(state: State) -> dict[str, Any]:
    """The whole state of a run at a step boundary, as one tree; tensors are the live ones, not copies."""
    model = state.engine.strategy.model_state(state.task)
    return {
        "model": {name: value for name, value in model.items() if isinstance(value, Tensor)},
        "model_extra": {name: value for name, value in model.items() if not isinstance(value, Tensor)},
        "optimizers": {name: optimizer.state_dict() for name, optimizer in state.optimizers.items()},
        "schedules": {name: schedule.state_dict() for name, schedule in state.schedules.items()},
        "precision": state.engine.precision.state_dict(),
        "progress": state.progress.state_dict(),
        "batches": state.train_batches.state_dict(),
        "callbacks": state.hooks.state_dict(),
        "values": state.values.state_dict(),
        "metrics": {name: metric.state_dict() for name, metric in state.metrics.items()},
        "results": dict(state.results),
        "recorded": state.run.counts(),
        "ended": state.ended,
        # Cleared at every boundary, unless the task's own zero_grad keeps something of them.
        "gradients": {n: p.grad for n, p in state.task.named_parameters() if p.grad is not None},
        "seed": state.seed,
        "rng": rng.capture(),
    }


def restore(state: State, contents: dict[str, Any]) -> None:
    """Put a run back to what `capture` saw. Generators come last, since building things draws from them.

    Raises:
        ValueError: the checkpoint is of a task with other optimizers, schedules or parameters.
    """
    for kind, present in (("optimizers", state.optimizers), ("schedules", state.schedules)):
        if set(contents[kind]) != set(present):
            raise ValueError(
                f"the checkpoint has the {kind} {sorted(contents[kind])}, the task {sorted(present)}: "
                "resume with the configuration that the run was started with"
            )
    load_model(state, contents)
    for name, optimizer in state.optimizers.items():
        optimizer.load_state_dict(contents["optimizers"][name])
    for name, schedule in state.schedules.items():
        schedule.load_state_dict(contents["schedules"][name])
    state.engine.precision.load_state_dict(contents["precision"])
    state.progress.load_state_dict(contents["progress"])
    state.current_step = state.progress.step  # an epoch's end that comes next belongs to this step
    state.ended = contents["ended"]
    state.train_batches.load_state_dict(contents["batches"])
    state.hooks.load_state_dict(contents["callbacks"])
    state.values.load_state_dict(contents["values"])
    for name, metric in state.metrics.items():
        if name in contents["metrics"]:
            metric.load_state_dict(contents["metrics"][name])
    state.results = dict(contents["results"])
    state.latest = dict(contents["results"])
    for name, parameter in state.task.named_parameters():
        if name in contents["gradients"]:
            parameter.grad = contents["gradients"][name].to(parameter.device)
    rng.restore(contents["rng"])


def load_model(state: State, contents: dict[str, Any]) -> None:
    """Put the task's parameters and buffers back.

    Raises:
        ValueError: names or shapes are not this task's; the text lists them.
    """
    try:
        state.task.load_state_dict({**contents["model"], **contents["model_extra"]})
    except RuntimeError as error:
        raise ValueError(f"the checkpoint is of another model: {error}") from error
