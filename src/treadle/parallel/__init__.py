"""Several processes that share every step: strategies, and the engine and the state that go with them.

`treadle.strategy.Strategy` is one process and the base class; nothing here is used then.
"""

from treadle.parallel.choosing import engine_of, state_of, strategy_of
from treadle.parallel.environment import place_of
from treadle.parallel.gathering import gathering
from treadle.parallel.together import looking_together, together

__all__ = ["engine_of", "gathering", "looking_together", "place_of", "state_of", "strategy_of", "together"]
