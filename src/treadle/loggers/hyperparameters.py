"""The settings of a run as trackers take them: one flat table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from treadle.state import State

LONGEST = 250
"""Characters of a value; MLflow takes no more than 500."""


def hyperparameters_of(state: State) -> dict[str, Any]:
    """The run's configuration by dotted name; without one, its setup, and what people sort by."""
    if state.run.config:
        return flat(state.run.config)
    optimizers = {name: type(one).__name__ for name, one in state.optimizers.items()}
    usual = {
        "seed": state.seed,
        "optimizer": next(iter(optimizers.values())) if len(optimizers) == 1 else optimizers,
        **state.learning_rates(),
    }
    return flat({**usual, **state.run.setup})


def flat(tree: Any, path: str = "") -> dict[str, Any]:
    """Numbers, booleans and strings by dotted name; anything else as text."""
    if isinstance(tree, Mapping):
        items = [(f"{path}.{key}" if path else str(key), value) for key, value in tree.items()]
    elif isinstance(tree, list) and any(isinstance(one, Mapping) for one in tree):
        items = [(f"{path}.{number}", value) for number, value in enumerate(tree)]
    elif isinstance(tree, (bool, int, float)):
        return {path: tree}
    else:
        return {path: str(tree)[:LONGEST]}
    return {name: leaf for key, value in items for name, leaf in flat(value, key).items()}
