"""Values of configurations of which some were trained several times."""

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["drawn_to_the_mean", "noise_of_repeats"]

_QUARTILE = 0.6745  # standard deviations between median and quartile of a normal distribution
_LEAST = 0.01  # of the noise's variance: where nothing but noise is seen, several good values still win against one


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


def drawn_to_the_mean(groups: Sequence[Sequence[float]], noise: float, mode: str = "min") -> list[float]:
    """Estimate each configuration's expected value: the best of many values was lucky, and is drawn to the middle.

    ``m + (mean_i - m) b / (b + noise^2 / r_i)``: the best linear prediction of a random effect. ``m`` is the median
    over configurations and ``r_i`` the number of repeats. ``b``, the variance between configurations, comes from the
    distance between the median and the better quartile: no bad configuration changes it, however bad it is.

    Args:
        groups: Values of each configuration.
        noise: Standard deviation of a value over seeds.
        mode: ``"min"`` if small values are good, ``"max"`` if large ones are.

    Returns:
        An estimate for each configuration.

    Example:
        >>> [round(each, 2) for each in drawn_to_the_mean([[1.0, 1.0], [1.0], [4.0], [5.0]], noise=1.0)]
        [1.16, 1.3, 3.7, 4.51]

    References:
        Robinson, "That BLUP is a Good Thing", Statistical Science 6(1), 1991.
    """
    means = np.array([np.mean(group) for group in groups])
    if noise == 0.0:
        return [float(each) for each in means]
    errors = noise**2 / np.array([len(group) for group in groups])
    middle = float(np.median(means))
    quartile = float(np.quantile(means, 0.25 if mode == "min" else 0.75, method="median_unbiased"))
    between = ((middle - quartile) / _QUARTILE) ** 2 - float(errors.mean())
    between = max(between, _LEAST * float(errors.mean()))
    return [float(each) for each in middle + (means - middle) * between / (between + errors)]
