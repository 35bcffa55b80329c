"""How many processes carry a run out, and what goes with that: chosen once, when a run is set up."""

from __future__ import annotations

from typing import Any

import torch

from treadle.engine import Engine
from treadle.parallel.environment import place_of
from treadle.state import State
from treadle.strategy import Strategy

NAMES = ("auto", "single", "all_reduce", "ddp", "fsdp2")


def strategy_of(given: str | Strategy, device: torch.device) -> Strategy:
    """The strategy itself, on the device, or a new one by name.

    "auto" is "single" for one process and "all_reduce" for one of several, as torchrun or srun start them.

    Raises:
        ValueError: there is no such name; the text lists them.
        TypeError: it is neither a name nor a strategy.
    """
    if isinstance(given, Strategy):
        given.device = device
        return given
    if not isinstance(given, str):
        raise TypeError(f"Trainer: strategy is {given!r}; give a name or a treadle.Strategy")
    if given == "auto":
        given = "single" if place_of().world_size == 1 else "all_reduce"
    if given == "single":
        return Strategy(device)
    # torch.distributed takes a while to import, and one process does without it.
    if given == "all_reduce":
        from treadle.parallel.all_reduce import AllReduce

        return AllReduce(device)
    if given == "ddp":
        from treadle.parallel.ddp import DDP

        return DDP(device)
    if given == "fsdp2":
        from treadle.parallel.fsdp2 import FSDP2

        return FSDP2(device)
    raise ValueError(
        f"Trainer: strategy is {given!r}; allowed are {', '.join(map(repr, NAMES))}, or an object"
    )


def engine_of(strategy: Strategy, *arguments: Any) -> Engine:
    """The engine for a strategy; see `Engine` for the arguments."""
    if not strategy.is_shared:
        return Engine(strategy, *arguments)
    from treadle.parallel.engine import ParallelEngine

    return ParallelEngine(strategy, *arguments)


def state_of(engine: Engine, **fields: Any) -> State:
    """The state for an engine; see `State` for the fields."""
    strategy = engine.strategy
    fields = {"engine": engine, "values": engine.new_log("train"), "is_main": strategy.is_main, **fields}
    if not strategy.is_shared:
        return State(**fields)
    from treadle.parallel.state import ParallelState

    return ParallelState(**fields)
