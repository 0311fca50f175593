"""The range test: the learning rate grows in each iteration, until the loss is lost."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lightning_trainingkit.functional.rate_trial import rounded_rate

__all__ = ["blown_up", "candidates_from_sweep", "drop_of_sweep", "moving_average", "sweep_rates"]

_REACH = 5  # losses on either side of one in a moving average


def sweep_rates(lowest: float, highest: float, iterations: int) -> list[float]:
    """Return rates that grow by the same factor from each iteration to the next.

    Example:
        >>> [round(rate, 4) for rate in sweep_rates(0.001, 0.1, 3)]
        [0.001, 0.01, 0.1]
    """
    return np.geomspace(lowest, highest, iterations).tolist()  # type: ignore[no-any-return]


def blown_up(losses: Sequence[float], start: float) -> bool:
    """Whether the latest losses are not finite, or so far above the start that the training is lost.

    Args:
        losses: The losses up to now.
        start: Loss of the untrained module.
    """
    latest = np.asarray(losses[-_REACH:], dtype=float)
    if not np.isfinite(latest).all():
        return True
    gained = max(0.0, start - min(losses, default=start))
    return bool(np.median(latest) > start + 4 * max(gained, abs(start)))


def moving_average(losses: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of each loss and its neighbours: five on either side, fewer at the ends.

    Example:
        >>> moving_average([1.0, 2.0, 3.0]).tolist()
        [2.0, 2.0, 2.0]
    """
    values, kernel = np.asarray(losses, dtype=float), np.ones(2 * _REACH + 1)
    reach = slice(_REACH, _REACH + len(values))
    return np.convolve(values, kernel)[reach] / np.convolve(np.ones_like(values), kernel)[reach]


def candidates_from_sweep(
    curve: Sequence[tuple[float, float]], start: float, start_error: float, count: int = 5
) -> list[float]:
    """Narrow a range test to a few candidates: the rate of the lowest loss, and smaller ones.

    Args:
        curve: Learning rate and loss of each iteration. The rate grows until the loss is lost or the range ends.
        start: Loss of the untrained module.
        start_error: Standard error of ``start``.
        count: Number of candidates.

    Returns:
        The candidates, the largest first, each a factor of ``sqrt(10)`` below the last one. If the loss never fell: the
        last rate of the test, and each a factor of 10 below the last one.
    """
    # A mean of eleven losses has about the error of the start. The lowest of many means is low by chance.
    fell = drop_of_sweep(curve, start) > 3 * math.sqrt(2) * start_error
    top, ratio = (curve[-1][0], 10.0)
    if fell:
        top, ratio = curve[int(np.argmin(moving_average(_finite_part(curve))))][0], math.sqrt(10)
    return [rounded_rate(top / ratio**step) for step in range(count)]


def drop_of_sweep(curve: Sequence[tuple[float, float]], start: float) -> float:
    """Return how far the moving average of the loss fell in a range test.

    Args:
        curve: Learning rate and loss of each iteration. The rate grows.
        start: Loss of the untrained module.
    """
    losses = _finite_part(curve)
    return float(start - moving_average(losses).min()) if len(losses) else 0.0


def _finite_part(curve: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
    """The losses before the first one that is not finite."""
    losses = np.asarray([loss for _, loss in curve], dtype=float)
    finite = np.isfinite(losses)
    return losses if finite.all() else losses[: int(np.argmin(finite))]
