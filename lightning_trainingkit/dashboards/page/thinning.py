"""Fewer points of a long curve, without losing what stands out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_trainingkit.dashboards.read.record import Curve

__all__ = ["Thinned", "thin"]


@dataclass
class Thinned:
    """A curve for drawing.

    Args:
        points: Real points, steps and values, shape ``(2, at most 2 * shares)``.
        means: Mean step and mean value of each share, shape ``(2, shares)``, for moving averages: those of the extremes
            alone would be wrong. None where ``points`` are all.
        counts: Values in each share.
        odd: Steps at which the value is no finite number, and which it is.
    """

    points: NDArray[np.float64]
    means: NDArray[np.float64] | None
    counts: NDArray[np.int64] | None
    odd: list[tuple[float, str]]


def thin(curve: Curve, shares: int, odd: int = 200) -> Thinned:
    """Cut a curve into equal shares, and keep the lowest and the highest point of each.

    Args:
        curve: In the order of its steps.
        shares: Most shares; curves of up to twice as many points are kept whole.
        odd: Most values that are not finite to keep, evenly chosen.

    Example:
        >>> steps = np.arange(1000.0)
        >>> curve = Curve(steps, np.where(steps == 777, 50.0, np.sin(steps)))
        >>> found = thin(curve, shares=10)
        >>> found.points.shape, float(found.points[1].max())
        ((2, 20), 50.0)
    """
    with np.errstate(over="ignore"):
        finite = np.isfinite(curve.values.astype(np.float32))
    strange = np.flatnonzero(~finite)
    strange = strange[np.linspace(0, len(strange) - 1, min(odd, len(strange))).astype(int)]
    kinds = [_word(value) for value in curve.values[strange]]
    marks = list(zip(curve.steps[strange].tolist(), kinds, strict=True))
    steps, values = curve.steps[finite], curve.values[finite]
    count = len(steps)
    if count <= 2 * shares:
        return Thinned(np.stack([steps, values]), None, None, marks)
    starts = np.arange(shares) * count // shares
    share = np.repeat(np.arange(shares), np.diff(starts, append=count))
    order = np.lexsort((values, share))  # the lowest of each share is the first of it, the highest the last
    kept = np.sort(np.concatenate([order[starts], order[np.append(starts[1:], count) - 1]]))
    counts = np.diff(starts, append=count)
    means = np.stack([np.add.reduceat(steps, starts) / counts, np.add.reduceat(values, starts) / counts])
    return Thinned(np.stack([steps[kept], values[kept]]), means, counts, marks)


def _word(value: float) -> str:
    return "NaN" if np.isnan(value) else "Infinity" if value > 0 else "-Infinity"
