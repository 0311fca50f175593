"""Measure which learning rates train well."""

from collections.abc import Callable
from statistics import fmean

from .cases import SEEDS
from .rates import GRID
from .settings import MODELS, OPTIMIZERS, Settings

__all__ = ["measure_rates"]


def measure_rates(
    scores: Callable[[list[Settings]], list[float]],
) -> dict[tuple[str, str], tuple[float, float, float]]:
    """Find the best rate of each model and optimizer, and the lowest and highest that end within 5 points of it.

    Args:
        scores: Trains with each of these settings, and returns the accuracies.
    """
    found = {}
    for model in MODELS:
        for optimizer in OPTIMIZERS:
            runs = [Settings(model, optimizer, seed, rate=rate) for rate in GRID for seed in SEEDS]
            reached = iter(scores(runs))
            means = {rate: fmean(next(reached) for _ in SEEDS) for rate in GRID}
            best = max(means, key=means.__getitem__)
            good = [rate for rate, mean in means.items() if mean >= means[best] - 0.05]
            found[model, optimizer] = (best, min(good), max(good))
    return found
