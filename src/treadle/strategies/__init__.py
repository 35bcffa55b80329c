"""How many processes carry a step out: one, or (subclasses) many that share it."""

from treadle.strategies.single import Strategy

__all__ = ["Strategy"]
