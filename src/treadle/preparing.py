"""From settings, a task and its data to what the loops need. Checks come first, the run's folder last."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from treadle import rng
from treadle.callbacks import progress_bar
from treadle.checkpoint.contents import check, restore
from treadle.composing import (
    bound_schedules,
    check_evaluation,
    check_task,
    optimizers_of,
    schedules_of,
    set_horizon,
)
from treadle.data import Batches, Source, as_source
from treadle.engine import Engine
from treadle.events import Callback, Every, Hook, Hooks
from treadle.fitting import Fitting
from treadle.log import counters
from treadle.parallel import looking_together, state_of
from treadle.rates import begin_again, groups_of, remember
from treadle.recording import begin_aside, begin_record, check_same_origin, find_origin
from treadle.runs import Run
from treadle.settings import Settings
from treadle.setups import counted, go_on, setup_of
from treadle.state import State
from treadle.task import Task

BATCH_SIZE = 32
EVAL_BATCH_SIZE = 256


def prepare(
    settings: Settings,
    task: Task,
    train: Any,
    looks: Mapping[str, Any],
    resume: str | Path | None,
    callbacks: list[Callback],
    config: Mapping[str, Any],
    stack: ExitStack,
) -> State:
    """The state of a fit, ready for the loops; see `Trainer.fit`. The folder of the run comes last.

    Args:
        settings: how the run is carried out.
        task, train, resume, config: as `Trainer.fit` has them.
        looks: data to evaluate, by name; those that are None are left out.
        callbacks: of this fit alone.
        stack: gets what is to be closed after it.
    """
    _check_fit(settings, task)
    settings.strategy.join()
    engine = settings.engine()
    origin = find_origin(resume, settings.run_dir)
    check_same_origin(origin, engine)
    seed = settings.seed if settings.seed is not None else origin.seed
    seed = engine.gather(secrets.randbelow(2**32) if seed is None else seed)[0]
    source = as_source(train, batch_size=BATCH_SIZE, shuffle=True, name="train")
    batches = engine.to_train(_open(settings, source, seed))
    stack.callback(batches.close)
    sources, evaluations = {"train": source}, {}
    for name, data in looks.items():
        if data is not None:
            sources[name] = _source_to_look(data, name)
            evaluations[name] = engine.to_look(_open(settings, sources[name], seed))
            stack.callback(evaluations[name].close)
    hooks = Hooks([*settings.callbacks, *callbacks, *settings.own_callbacks()])
    engine.strategy.setup(task)
    evaluates_by_steps = evaluations and settings.eval_every and settings.eval_every.steps
    state = state_of(
        engine,
        task=task,
        hooks=hooks,
        max_epochs=settings.max_epochs,
        max_steps=settings.max_steps,
        accumulate=settings.accumulate,
        optimizers=optimizers_of(task),
        train_batches=batches,
        evaluations=evaluations,
        log_every=Every(steps=settings.log_every, seconds=1.0),
        eval_steps=settings.eval_every if evaluates_by_steps else None,
        eval_epochs=settings.eval_every,
        metrics=counters(task.metrics, engine.device),
        seed=seed,
    )
    check_evaluation(state)
    set_horizon(state)
    schedules = schedules_of(task, state)
    begin_again(task, schedules)
    made = groups_of(state.optimizers)
    stack.callback(remember, state, made)
    state.schedules = bound_schedules(schedules, state)
    _set_up(engine, state)
    state.turn = state.turned(Fitting(state) if settings.microbatch_size == "auto" else task.train_step)
    stack.enter_context(settings.compile.compiled(task.compile_modules()))
    if settings.deterministic:
        stack.enter_context(_deterministic())
    task.train()
    rng.seed_all(seed, engine.strategy.data_rank)  # shares of a batch draw different masks
    setup = setup_of(state, settings.described(), sources, [*settings.callbacks, *callbacks], made)
    changed = {}
    if origin.contents is not None:
        check(state, origin.contents)
        changed = go_on(origin.contents, setup, state)
        restore(state, origin.contents)
    state.setup = counted(setup)
    begin, facts = begin_record if state.is_main else begin_aside, {"seed": seed, **settings.facts()}
    state.run = begin(state.progress, origin, settings.run_dir, config, facts, setup, changed)
    return state


@contextmanager
def looking(
    settings: Settings, task: Task, data: Any, name: str, *more: Callback
) -> Iterator[tuple[State, Batches]]:
    """A state to evaluate or predict with, and the opened data; see `Trainer.evaluate`."""
    check_task(task)
    settings.strategy.join()
    engine = settings.engine()
    batches = engine.to_look(_open(settings, _source_to_look(data, name), settings.seed or 0))
    engine.strategy.setup_to_look(task)
    shown = [progress_bar()] if settings.progress and settings.strategy.is_main else []
    own = [*more, *shown]
    run = Run.create(None, name=name, config={}, environment={})
    state = state_of(engine, task=task, hooks=Hooks([*settings.callbacks, *own]), run=run)
    with looking_together(state), ExitStack() as cleanup:
        cleanup.callback(batches.close)
        cleanup.enter_context(settings.compile.compiled(task.compile_modules()))
        for callback in own:  # for the others it is the end of a fit, and one may be going on
            cleanup.callback(callback.on_cleanup, state)
        yield state, batches


def _check_fit(settings: Settings, task: object) -> None:
    if (settings.max_epochs is None) == (settings.max_steps is None):
        given = "neither" if settings.max_epochs is None else "both"
        raise ValueError(f"Trainer: give exactly one of max_epochs and max_steps to fit; {given} is given")
    check_task(task)
    if settings.microbatch_size == "auto" and settings.strategy.world_size > 1:
        raise ValueError(
            f"Trainer: microbatch_size is 'auto' on {settings.strategy.world_size} processes, which "
            "would try different sizes; give a number"
        )


def _source_to_look(data: Any, name: str) -> Source:
    return as_source(data, batch_size=EVAL_BATCH_SIZE, name=name).in_order()


def _open(settings: Settings, source: Source, seed: int) -> Batches:
    strategy = settings.strategy
    pin_memory = settings.device.type == "cuda"
    return source.open(seed, strategy.data_rank, strategy.data_size, pin_memory=pin_memory)


def _set_up(engine: Engine, state: State) -> None:
    """Make the engine's verbs ready for the task's parameters, optimizers and listeners."""
    task, hooks = state.task, state.hooks
    own_zero_grad = type(task).zero_grad is not Task.zero_grad
    engine.setup(task, state.optimizers, state.schedules, task.zero_grad if own_zero_grad else None)
    engine.clear_gradients()  # what somebody left from before does not belong to the first step
    engine.before_step = tuple(_bound(hook, state) for hook in hooks.on_before_optimizer_step)
    engine.after_step = tuple(_bound(hook, state) for hook in hooks.on_after_optimizer_step)


def _bound(hook: Hook, state: State) -> Callable[[], None]:
    return lambda: hook(state)


@contextmanager
def _deterministic() -> Iterator[None]:
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
