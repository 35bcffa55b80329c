"""Warm-up, then down on a straight line: at once, or at the end of the run."""

from __future__ import annotations

from treadle.schedules.constant import Constant, check_factor
from treadle.schedules.curve import Curve
from treadle.schedules.durations import Duration, Fraction, Horizon, as_duration, length_of, limited


class LinearDecay(Constant):
    """Warm-up, then a decay that ends with the run; between the two the rate is constant.

    The factor is final + (1 - final) * shape(p), where p goes from 0 to 1 over the decay. The last step of a
    run of T steps is at p = 1 - 1/decay; whoever goes on past the end stays at `final`. Subclasses have
    another shape.

    Args:
        warmup: how long the rate rises.
        decay: how long it falls, at the end of the run; None: all the time after the warm-up.
        final: the factor it falls to.
        start: the factor of the first step of the warm-up.
        total: the length of the schedule; None: the run's. For data without a length, give steps.

    Raises:
        TypeError, ValueError: an argument is out of range; at the start of a fit: warm-up and decay are
            longer than the run, or its length is not known.
    """

    def __init__(
        self,
        warmup: Duration = 0,
        decay: Duration | None = None,
        final: float = 0.0,
        start: float = 0.0,
        total: Duration | None = None,
    ) -> None:
        super().__init__(warmup, start)
        self.decay = None if decay is None else as_duration(decay, self._named("decay"))
        self.final = check_factor(final, self._named("final"))
        self.total = None if total is None else as_duration(total, self._named("total"))

    def curve(self, horizon: Horizon) -> Curve:
        """The factor on the learning rate as a function of the steps done."""
        return super().curve(limited(horizon, self.total, self._named("total")))

    def after(self, warmup: int, horizon: Horizon) -> Curve:
        """Constant until the decay begins, then down to `final`."""
        total = length_of(horizon, f"{type(self).__name__} ends with the run")
        decay = total - warmup
        if self.decay is not None:
            decay = self.decay.steps(horizon, self._named("decay"))
        if warmup + decay > max(total, 1):
            raise ValueError(
                f"{type(self).__name__}: warmup ({warmup} steps) and decay ({decay} steps) are longer than "
                f"the run of {total} steps"
            )
        begin, final, shape = total - decay, self.final, self.shape

        def follow(step: int) -> float:
            if step >= total:
                return final
            return 1.0 if step <= begin else final + (1 - final) * shape((step - begin) / decay)

        return follow

    def shape(self, progress: float) -> float:
        """From 1 at progress 0 to 0 at progress 1."""
        return 1.0 - progress


class WarmupStableDecay(LinearDecay):
    """Warm-up, a constant rate, and a linear decay at the end of the run (WSD; Hu et al. 2024).

    Before the decay begins nothing depends on the length of the run (give the warm-up in steps or epochs), so
    one may go on from there with a longer one. With another shape: CosineDecay(decay=0.1).

    Args:
        warmup: how long the rate rises.
        decay: how long it falls, at the end.
        final, start, total: see `LinearDecay`.
    """

    def __init__(
        self,
        warmup: Duration = 0,
        decay: Duration = Fraction(0.1),  # noqa: B008 - frozen
        final: float = 0.0,
        start: float = 0.0,
        total: Duration | None = None,
    ) -> None:
        super().__init__(warmup, decay, final, start, total)
