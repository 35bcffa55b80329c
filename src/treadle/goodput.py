"""How much of a long run's time is training, and how often it should save.

Failures come as a Poisson process. A failure loses the work since the last checkpoint; it may come while
saving and while restarting, too.

Sources: Young, A first order approximation to the optimum checkpoint interval, CACM 17(9), 1974;
Daly, A higher order estimate of the optimum checkpoint interval for restart dumps, FGCS 22(3), 2006.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Cluster:
    """What decides how much time is lost; all in seconds.

    Attributes:
        between_failures: mean time between failures of the whole job: of one machine, divided by how many.
        save: how long training waits for a checkpoint.
        restart: from a failure to the next step: noticing it, waiting for machines, loading.

    Raises:
        ValueError: a time is negative, or `between_failures` or `save` is not positive.
    """

    between_failures: float
    save: float
    restart: float = 0.0

    def __post_init__(self) -> None:
        for name, value, least in (
            ("between_failures", self.between_failures, 0.0),
            ("save", self.save, 0.0),
            ("restart", self.restart, -math.ulp(0.0)),
        ):
            if not (math.isfinite(value) and value > least):
                raise ValueError(f"Cluster: {name} is {value!r} seconds; it must be positive")

    def young(self) -> float:
        """Young's interval: sqrt(2 save between_failures), seconds of training from save to save."""
        return math.sqrt(2 * self.save * self.between_failures)

    def daly(self) -> float:
        """Daly's interval, which also holds where saving is not short beside the time between failures."""
        ratio = self.save / (2 * self.between_failures)
        if ratio >= 1:
            return self.between_failures
        return self.young() * (1 + math.sqrt(ratio) / 3 + ratio / 9) - self.save

    def expected(self, interval: float) -> float:
        """The part of all time that is training which is kept, from 0 to 1 (Daly's complete model)."""
        mean = self.between_failures
        exponent = (interval + self.save + self.restart) / mean
        if exponent > 700:
            return 0.0
        lost = math.exp(self.restart / mean) * math.expm1((interval + self.save) / mean)
        return interval / (mean * lost)

    def simulated(self, interval: float, failures: int = 10_000, seed: int = 0) -> float:
        """The same, counted in a run that goes on until so many failures have come.

        Args:
            interval: seconds of training from save to save.
            failures: how many; the estimate is within about 1 / sqrt(failures) of the truth.
            seed: of their times.
        """
        draw = random.Random(seed)
        segment = interval + self.save
        elapsed = kept = 0.0
        for _ in range(failures):
            life = draw.expovariate(1 / self.between_failures)
            elapsed += life
            if life > self.restart:
                kept += interval * ((life - self.restart) // segment)
        return kept / elapsed
