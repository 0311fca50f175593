"""Points of a space that are known before the search: quasi-random, random, or a grid."""

import math
from collections.abc import Sequence
from itertools import product
from typing import Any, cast

import numpy as np
import torch
from torch.quasirandom import SobolEngine

from lightning_trainingkit.tuning.trials.domains import Choices, Domain, Range
from lightning_trainingkit.tuning.trials.space import Space

__all__ = ["grid_points", "middle", "quasi_random_points", "random_points"]


def quasi_random_points(space: Space, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """The first points of a scrambled Sobol sequence. They fill the space more evenly than random points.

    Optuna's QMCSampler draws at random until a first trial is finished, and its choices are always random.

    Args:
        space: The space.
        count: Number of points. The first ones do not depend on it.
        seed: Scrambles the sequence.

    Example:
        >>> space = Space({"lr": {"low": 1e-3, "high": 1e-1, "log": True}, "act": ["relu", "gelu"]})
        >>> [point["act"] for point in quasi_random_points(space, 4)].count("gelu")
        2
    """
    if count == 0:
        return []
    engine: Any = cast(Any, SobolEngine)(len(space), scramble=True, seed=seed)
    return [_point(space, shares) for shares in engine.draw(count, dtype=torch.float64).tolist()]


def random_points(space: Space, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Random points. The first ones do not depend on their number."""
    shares = np.random.default_rng([seed, 1]).random((count, len(space)))
    return [_point(space, row) for row in shares.tolist()]


def grid_points(space: Space, most: int) -> list[dict[str, Any]]:
    """The grid with as many values of each range as ``most`` points allow, in a fixed mixed order.

    Args:
        space: The space.
        most: Largest number of points.

    Raises:
        ValueError: If a grid with two values of each range has more points.
    """
    ranges = [name for name, domain in space.items() if isinstance(domain, Range)]
    choices = math.prod(len(domain.values) for domain in space.values() if isinstance(domain, Choices))
    values = 1
    while ranges and choices * (values + 1) ** len(ranges) <= most:
        values += 1
    least = choices * 2 ** len(ranges)
    if most < least:
        raise ValueError(
            f"`trials` must be at least {least} for a grid of {', '.join(space)}, got {most}. Take more trials, fewer "
            "hyperparameters, or sampler='quasi-random'."
        )
    axes = {name: _values(domain, values) for name, domain in space.items()}
    points = [dict(zip(axes, each, strict=True)) for each in product(*axes.values())]
    order = np.random.default_rng(0).permutation(len(points))
    return [points[place] for place in order]


def middle(domain: Domain) -> Any:
    """The middle of a range, or the first choice."""
    return domain.values[0] if isinstance(domain, Choices) else _value(domain, 0.5)


def _point(space: Space, shares: Sequence[float]) -> dict[str, Any]:
    return {name: _value(domain, share) for (name, domain), share in zip(space.items(), shares, strict=True)}


def _values(domain: Domain, count: int) -> list[Any]:
    if isinstance(domain, Choices):
        return list(domain.values)
    found = [_between(domain, place / (count - 1)) for place in range(count)]
    return list(dict.fromkeys(round(each) for each in found)) if domain.integer else found


def _value(domain: Domain, share: float) -> Any:
    """The value at a share of a domain, from 0 to 1."""
    if isinstance(domain, Choices):
        return domain.values[min(int(share * len(domain.values)), len(domain.values) - 1)]
    if not domain.integer:
        return _between(domain, share)
    widened = Range(domain.low - 0.5, domain.high + 0.5, domain.log)  # each integer has its share
    return int(min(max(round(_between(widened, share)), domain.low), domain.high))


def _between(domain: Range, share: float) -> float:
    low, high = float(domain.low), float(domain.high)
    value = math.exp(math.log(low) + share * math.log(high / low)) if domain.log else low + share * (high - low)
    return min(max(value, low), high)
