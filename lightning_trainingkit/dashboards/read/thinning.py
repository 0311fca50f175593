"""Thin long curves, and keep their extreme values."""

import numpy as np
from numpy.typing import NDArray

from lightning_trainingkit.dashboards.read.record import Curve, Floats

__all__ = ["SHARES", "is_drawable", "thin"]

SHARES = 800
"""Largest number of shares of a curve that a page draws."""


def is_drawable(values: Floats) -> NDArray[np.bool_]:
    """Mark the values that are finite as 32-bit floats, which the page needs."""
    with np.errstate(over="ignore"):
        return np.isfinite(values.astype(np.float32))


def thin(curve: Curve, shares: int, odd: int = 200) -> Curve:
    """Cut a curve into equal shares, and keep the lowest and the highest point of each.

    The first, the last, the lowest and the highest point of the curve stay. The mean step, the mean value and the count
    of each share stay too: a moving average over the extremes alone would be wrong. If the curve was thinned before,
    its means are averaged with their counts as weights.

    Args:
        curve: A curve in the order of its steps, whole or thinned before.
        shares: Largest number of shares. Curves of up to twice as many points are kept whole.
        odd: Largest number of values to keep that cannot be drawn (NaN, infinities), evenly chosen.

    Returns:
        A curve of at most ``2 * shares + 2`` points that can be drawn, and about ``odd`` that cannot.

    Example:
        >>> steps = np.arange(1000.0)
        >>> found = thin(Curve(steps, np.where(steps == 777, 50.0, np.sin(steps))), shares=10)
        >>> len(found.steps), float(found.values.max()), found.means.shape
        (22, 50.0, (3, 10))
    """
    drawable = is_drawable(curve.values)
    strange, plain = np.flatnonzero(~drawable), np.flatnonzero(drawable)
    means = curve.means
    if len(plain) > 2 * shares + 2 * (means is not None):
        if means is None:
            means = _means(np.stack([curve.steps[plain], curve.values[plain], np.ones(len(plain))]), shares)
        plain = plain[_extremes(curve.values[plain], shares)]
    if means is not None and means.shape[1] > shares:
        means = _means(means, shares)
    if len(strange) > odd:
        large = strange[np.isfinite(curve.values[strange])]  # 1e39 cannot be drawn, but may be the highest value
        ends = [large[curve.values[large].argmin()], large[curve.values[large].argmax()]] if len(large) else []
        strange = np.concatenate([strange[np.linspace(0, len(strange) - 1, odd).astype(int)], ends]).astype(int)
    kept = np.zeros(len(curve.values), dtype=bool)
    kept[plain] = kept[strange] = True
    return Curve(curve.steps[kept], curve.values[kept], means)


def _starts(count: int, shares: int) -> NDArray[np.int64]:
    return np.arange(min(shares, count)) * count // min(shares, count)


def _extremes(values: Floats, shares: int) -> NDArray[np.int64]:
    """Indices of the first and the last value, and of the first lowest and the first highest value of each share."""
    starts = _starts(len(values), shares)
    share = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(values)))
    kept = [np.array([0, len(values) - 1])]
    for extreme in (np.minimum, np.maximum):
        equal = np.flatnonzero(values == extreme.reduceat(values, starts)[share])
        kept.append(equal[np.flatnonzero(np.diff(share[equal], prepend=-1))])
    return np.concatenate(kept)


def _means(points: Floats, shares: int) -> Floats:
    """Mean step, mean value and count of each share, from rows of steps, values and weights."""
    starts = _starts(points.shape[1], shares)
    weights = np.add.reduceat(points[2], starts)
    sums = np.add.reduceat(points[:2] * points[2], starts, axis=1)
    return np.vstack([sums / weights, weights])
