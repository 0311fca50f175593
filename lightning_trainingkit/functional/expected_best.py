"""The best of a few trials, as it is expected before they are drawn."""

from collections.abc import Sequence

import numpy as np

__all__ = ["expected_best"]


def expected_best(values: Sequence[float], draws: int, mode: str = "min") -> tuple[float, float]:
    """Mean and standard deviation of the best of ``draws`` values, drawn from ``values`` with replacement.

    ``P(best <= v_(i)) = 1 - (1 - i/n)^k`` for the values in growing order: the bootstrap's expectation without drawing.

    Args:
        values: Values of finished trials, ``n`` of them.
        draws: Number of trials ``k``.
        mode: ``"min"`` if small values are good, ``"max"`` if large ones are.

    Returns:
        The mean and the standard deviation.

    Example:
        >>> mean, _ = expected_best([0.4, 0.1, 0.3, 0.2], draws=2)
        >>> print(f"{mean:.4f}")
        0.1875

    References:
        Dodge et al., "Show Your Work: Improved Reporting of Experimental Results", EMNLP 2019, arXiv:1909.03004.
    """
    best_first = np.sort(np.asarray(values, dtype=np.float64))
    if mode == "max":
        best_first = best_first[::-1]
    left = (1 - np.arange(len(best_first) + 1) / len(best_first)) ** draws  # no draw is among the best i
    weights = left[:-1] - left[1:]
    mean = float(weights @ best_first)
    return mean, float(np.sqrt(weights @ (best_first - mean) ** 2))
