"""fastai's four rules, written from their description in fastai 2.7 (``fastai/callback/schedule.py``).

The rules read the loss smoothed by 0.98, without the first ten and the last five steps. The test ends where the
smoothed loss is four times its lowest value.
"""

import math
from collections.abc import Callable, Sequence
from itertools import takewhile

import numpy as np

from .range_test import LENGTH

__all__ = ["RULES", "choose"]

SMOOTHING, DIVERGED, LEFT_OUT = 0.98, 4.0, 5


def choose(rule: str, rates: Sequence[float], losses: Sequence[float]) -> tuple[float | None, int]:
    """Apply a rule to a range test.

    Args:
        rule: A name in ``RULES``.
        rates: Rate of each step.
        losses: Loss of each step.

    Returns:
        The rate, or None where too few steps are left; and the steps until the test ends.
    """
    smoothed = _smooth(losses)
    if math.isnan(smoothed[-1]):  # fastai's test goes on after NaN, so that its last steps are NaN
        smoothed += [math.nan] * (LENGTH - len(smoothed))
    start = LENGTH // 10
    kept = list(takewhile(lambda loss: not math.isnan(loss), smoothed[start:-LEFT_OUT]))
    if len(kept) < 2:
        return None, len(smoothed)
    return RULES[rule](np.array(rates[start : start + len(kept)]), np.array(kept)), len(smoothed)


def _smooth(losses: Sequence[float]) -> list[float]:
    """Running mean, corrected for its start, until it diverges."""
    mean, smoothed, lowest = 0.0, [], math.inf
    for step, loss in enumerate(losses, 1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        smoothed.append(mean / (1 - SMOOTHING**step))
        lowest = min(lowest, smoothed[-1])
        if smoothed[-1] > DIVERGED * lowest:
            break
    return smoothed


def _valley(rates: np.ndarray, losses: np.ndarray) -> float:
    """The middle of the longest valley, which has as many steps as its longest decreasing sequence."""
    lengths = [1] * len(losses)
    for end in range(1, len(losses)):
        below = [lengths[place] for place in range(end) if losses[place] > losses[end]]
        lengths[end] = 1 + max(below, default=0)
    end = int(np.argmax(lengths))
    start = end - lengths[end] if end else 0
    third = (end - start) / 3
    return float(rates[start + int(third) + int(third / 2)])


def _steep(rates: np.ndarray, losses: np.ndarray) -> float:
    """Where the loss falls fastest over the logarithm of the rate."""
    return float(rates[np.argmin(np.diff(losses) / np.diff(np.log(rates)))])


def _minimum(rates: np.ndarray, losses: np.ndarray) -> float:
    """A tenth of the rate with the lowest loss."""
    return float(rates[np.argmin(losses)]) / 10


def _slide(rates: np.ndarray, losses: np.ndarray, width: int = 15, threshold: float = 0.005) -> float:
    """Slide an interval from the right while the slopes at its ends differ; its left end."""
    slopes = np.gradient(losses)
    right, left = -1, max(-1 - width, -len(losses))
    chosen = rates[left]
    while left >= -len(losses) and abs(slopes[right] - slopes[left]) > threshold:
        chosen = rates[left]
        right, left = right - 1, left - 1
    return float(chosen)


RULES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "fastai, valley": _valley,
    "fastai, steep": _steep,
    "fastai, minimum / 10": _minimum,
    "fastai, slide": _slide,
}
