"""Fewer points of a long curve, without losing what stands out."""

import numpy as np
from numpy.typing import NDArray

from lightning_trainingkit.dashboards.read.record import Curve, Floats

__all__ = ["SHARES", "is_drawable", "thin"]

SHARES = 800
"""Most shares of a curve that a page draws."""


def is_drawable(values: Floats) -> NDArray[np.bool_]:
    """Which values are finite numbers that 32 bits can hold, as the page needs them."""
    with np.errstate(over="ignore"):
        return np.isfinite(values.astype(np.float32))


def thin(curve: Curve, shares: int, odd: int = 200) -> Curve:
    """Cut a curve into equal shares, and keep the lowest and the highest point of each.

    The first, the last, the lowest and the highest point of the curve stay. So do the mean step, the mean value and the
    count of each share: a moving average of the extremes alone would be wrong. Of a thinned curve the means are
    averaged, weighted by their counts.

    Args:
        curve: In the order of its steps, whole or thinned before.
        shares: Most shares; curves of up to twice as many points are kept whole.
        odd: Most values that cannot be drawn (NaN, infinities) to keep, evenly chosen.

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
        large = strange[np.isfinite(curve.values[strange])]  # 1e39 cannot be drawn, but is the highest value
        ends = [large[curve.values[large].argmin()], large[curve.values[large].argmax()]] if len(large) else []
        strange = np.concatenate([strange[np.linspace(0, len(strange) - 1, odd).astype(int)], ends]).astype(int)
    kept = np.zeros(len(curve.values), dtype=bool)
    kept[plain] = kept[strange] = True
    return Curve(curve.steps[kept], curve.values[kept], means)


def _starts(count: int, shares: int) -> NDArray[np.int64]:
    return np.arange(min(shares, count)) * count // min(shares, count)


def _extremes(values: Floats, shares: int) -> NDArray[np.int64]:
    """Places of the first and the last value, and of the first lowest and the first highest of each share."""
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
