"""A short training at a constant learning rate: the drop of its loss, and the interval of the drop."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = ["RateTrial", "rounded_rate"]

_BLOCK = 5  # neighbouring losses are correlated: an interval is made from the means of blocks
_TAIL = 0.3  # of a trial: its end
_Z = 2.0  # standard errors of an interval


@dataclass(frozen=True)
class RateTrial:
    """One short training at a constant learning rate. All trials saw the same batches from the same start.

    Args:
        rate: The learning rate.
        losses: The loss of each iteration.
        start: Loss of the untrained module.
        finite: Whether all losses were finite.
        planned: Iterations that the trial was to have. It has fewer if it lost early or broke.
        start_error: Standard error of ``start``.

    Example:
        >>> trial = RateTrial(0.1, tuple(2.0 - 0.01 * step for step in range(100)), 2.0, True, 100)
        >>> round(trial.drop, 3)
        0.845
    """

    rate: float
    losses: tuple[float, ...]
    start: float
    finite: bool
    planned: int
    start_error: float = 0.0

    @cached_property
    def end(self) -> NDArray[np.float64]:
        """The losses of the last part, the newest last."""
        return np.asarray(self.losses[-_tail(len(self.losses)) :], dtype=float)

    @property
    def drop(self) -> float:
        """Loss at the start minus the mean loss at the end; minus infinity if a loss was not finite."""
        return self.start - float(self.end.mean()) if self.finite and self.losses else -math.inf

    @property
    def margin(self) -> float:
        """Half of the interval of the drop, at two standard errors."""
        return (
            _Z * math.hypot(_standard_error(self.end), self.start_error)
            if self.finite and len(self.losses) > _BLOCK
            else math.inf
        )

    @property
    def whole(self) -> bool:
        """Whether the trial had all iterations that were planned, with finite losses."""
        return self.finite and len(self.losses) >= self.planned

    @property
    def significant(self) -> bool:
        """Whether the loss fell by more than chance can explain, where the best of several trials is looked at."""
        return self.drop > 1.5 * self.margin  # three standard errors

    def behind(self, other: "RateTrial", iterations: int) -> tuple[float, float]:
        """Return how far the loss is above that of another trial, and the standard error.

        The losses are compared one by one, since both trials saw the same batches.

        Args:
            other: The other trial.
            iterations: Iterations of the trials after which they are compared.
        """
        begin = iterations - _tail(iterations)
        ours, theirs = (np.asarray(each.losses[begin:iterations], dtype=float) for each in (self, other))
        shared = min(len(ours), len(theirs))
        if not shared or not self.finite:
            return math.inf, 0.0
        difference = ours[:shared] - theirs[:shared]
        return float(difference.mean()), _standard_error(difference)


def _tail(iterations: int) -> int:
    """Number of losses at the end of a trial."""
    return max(_BLOCK, round(_TAIL * iterations))


def _standard_error(values: NDArray[np.float64]) -> float:
    """Standard error of a mean, from the means of blocks."""
    blocks = [part.mean() for part in np.array_split(values, max(2, len(values) // _BLOCK)) if len(part)]
    return float(np.std(blocks, ddof=1) / math.sqrt(len(blocks))) if len(blocks) > 1 else math.inf


def rounded_rate(rate: float) -> float:
    """Round a rate to two digits.

    Example:
        >>> rounded_rate(0.012345)
        0.012
    """
    return float(f"{rate:.2g}")
