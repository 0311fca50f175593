"""Values of configurations of which some were trained several times."""

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["drawn_to_the_mean", "noise_of_repeats"]


def noise_of_repeats(groups: Sequence[Sequence[float]]) -> float | None:
    """Standard deviation of a configuration's value over seeds, pooled over all configurations with repeats.

    Args:
        groups: Values of each configuration.

    Returns:
        The standard deviation, or None if no configuration has two values.

    Example:
        >>> noise_of_repeats([[1.0, 3.0], [5.0]])
        1.4142135623730951
    """
    several = [np.asarray(group, dtype=np.float64) for group in groups if len(group) > 1]
    if not several:
        return None
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in several)
    return math.sqrt(squares / sum(len(group) - 1 for group in several))


def drawn_to_the_mean(groups: Sequence[Sequence[float]], noise: float) -> list[float]:
    """Estimate each configuration's expected value: the best of many values was lucky, and is drawn to the mean.

    ``m + (mean_i - m) b / (b + noise^2 / r_i)``, where ``b`` is the variance between configurations, ``m`` the mean
    over configurations and ``r_i`` the number of repeats: the best linear prediction of a random effect.

    Args:
        groups: Values of each configuration.
        noise: Standard deviation of a value over seeds.

    Returns:
        An estimate for each configuration.

    Example:
        >>> [round(each, 2) for each in drawn_to_the_mean([[0.0, 0.0], [0.0], [4.0]], noise=1.0)]
        [0.13, 0.24, 3.52]

    References:
        Robinson, "That BLUP is a Good Thing", Statistical Science 6(1), 1991.
    """
    means = np.array([np.mean(group) for group in groups])
    errors = noise**2 / np.array([len(group) for group in groups])
    middle = float(means.mean())
    between = max(0.0, float(means.var(ddof=1)) - float(errors.mean())) if len(means) > 1 else 0.0
    if between == 0.0:
        return [middle] * len(means) if noise > 0 else [float(each) for each in means]
    return [float(each) for each in middle + (means - middle) * between / (between + errors)]
