"""The mean of scores of overlapping training sets, with an interval that knows of the overlap."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_trainingkit.functional import _check

__all__ = ["ResampledMean", "resampled_mean"]


@dataclass(frozen=True)
class ResampledMean:
    """A mean over the folds of a cross-validation.

    Args:
        mean: Mean of the scores.
        std: Standard deviation of the scores, with the divisor ``n - 1``.
        low: Lower end of the interval.
        high: Upper end of the interval.
        p_value: Two-sided probability of a mean as far from 0 as this one, if the true mean is 0.

    Example:
        >>> ResampledMean(0.5, 0.1, 0.25, 0.75, 0.01).half
        0.25
    """

    mean: float
    std: float
    low: float
    high: float
    p_value: float

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2


def resampled_mean(values: Sequence[float], test_share: float, confidence: float = 0.95) -> ResampledMean:
    r"""Compute the mean of the scores of a resampled experiment by the corrected resampled t-test.

    Training sets of a cross-validation overlap, so its scores are not independent, and the usual standard error
    :math:`s / \sqrt n` is too small. The corrected one is :math:`s \sqrt{1/n + q / (1 - q)}` with the share :math:`q`
    of held-out examples, in a t-distribution of :math:`n - 1` degrees of freedom. It does not vanish with more repeats.
    For paired differences of two configurations, give the differences.

    Args:
        values: A score for each fold, at least two.
        test_share: Share of the examples that a fold holds out: ``1 / K`` for K folds.
        confidence: Probability that the interval holds the true mean.

    Returns:
        The mean, its interval and the p-value against 0.

    Raises:
        ImportError: If scipy is not installed.
        ValueError: If there are fewer than two values, or one that is not finite.

    Example:
        >>> found = resampled_mean([0.90, 0.92, 0.91, 0.93, 0.94], test_share=1 / 5)
        >>> print(f"{found.mean:.2f} +- {found.half:.3f}")
        0.92 +- 0.029

    References:
        Nadeau and Bengio, "Inference for the Generalization Error", Machine Learning 52, 2003.
    """
    try:
        from scipy.stats import t
    except ImportError as error:
        raise ImportError(f"{error}. Run: pip install 'lightning-trainingkit[tuning]'.") from error
    _check.share("test_share", test_share, "Give 1 / K for K folds.")
    _check.share("confidence", confidence, "Try 0.95.")
    scores = [_check.number("values", each, "Leave folds that diverged out.") for each in values]
    n = len(scores)
    if n < 2:
        raise ValueError(f"`values` must hold at least two scores, got {n}. One score has no interval.")
    mean = math.fsum(scores) / n
    std = math.sqrt(math.fsum((each - mean) ** 2 for each in scores) / (n - 1))
    standard_error = std * math.sqrt(1 / n + test_share / (1 - test_share))
    half = float(t.ppf((1 + confidence) / 2, n - 1)) * standard_error
    p_value = 2 * float(t.sf(abs(mean) / standard_error, n - 1)) if standard_error > 0 else float(mean == 0)
    return ResampledMean(mean, std, mean - half, mean + half, p_value)
