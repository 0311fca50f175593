"""The space of the next round: wider where the best value lay at an edge."""

import math
from collections.abc import Mapping

from lightning_trainingkit.tuning.trials.domains import Domain, Range
from lightning_trainingkit.tuning.trials.space import Space

__all__ = ["widen"]

_STEP = 0.5  # of the width of the range


def widen(space: Space, at: Mapping[str, str], outer: Space | None = None) -> Space:
    """Widen ranges at one end by half of their width.

    Args:
        space: The space.
        at: The end at which each hyperparameter has its best value, ``"low"`` or ``"high"``.
        outer: A space that is not left. None sets no limit, but a linear range never passes 0.

    Example:
        >>> widen(Space({"lr": {"low": 1e-4, "high": 1e-2, "log": True}}), {"lr": "high"})["lr"].high
        0.1
    """
    return Space(
        {name: _widened(each, at.get(name), None if outer is None else outer.get(name)) for name, each in space.items()}
    )


def _widened(domain: Domain, side: str | None, outer: Domain | None) -> Domain:
    if not isinstance(domain, Range) or side is None:
        return domain
    low, high = float(domain.low), float(domain.high)
    if domain.log:
        factor = (high / low) ** _STEP
        low, high = (low / factor, high) if side == "low" else (low, float(f"{high * factor:.12g}"))
    else:
        step = _STEP * (high - low)
        low, high = (low - step if low < 0 else max(0.0, low - step), high) if side == "low" else (low, high + step)
    if domain.integer:
        low, high = math.floor(low), math.ceil(high)
        low = max(low, 1) if domain.log else low
    if isinstance(outer, Range):
        low, high = max(low, outer.low), min(high, outer.high)
    return Range(low, high, domain.log, domain.integer)
