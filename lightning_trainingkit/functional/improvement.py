"""Whether a monitored value has improved."""

import torch
from torch import Tensor

__all__ = ["is_better", "smooth", "worst_value"]

_OPERATORS = {"min": torch.lt, "max": torch.gt}


def worst_value(mode: str) -> Tensor:
    """The value that every finite value improves on: infinity for ``min``, its negative for ``max``. Shape ``()``."""
    return torch.tensor(torch.inf if mode == "min" else -torch.inf)


def is_better(value: Tensor, best: Tensor, mode: str, min_delta: float = 0.0) -> bool:
    """Whether ``value`` improves on ``best`` by more than ``min_delta``; NaN and infinity never do.

    Args:
        value: The new value, shape ``()``.
        best: The best value so far, shape ``()``.
        mode: ``"min"`` if smaller is better, ``"max"`` if larger is.
        min_delta: Smallest change that counts, not negative.

    Example:
        >>> is_better(torch.tensor(0.8), torch.tensor(1.0), "min", min_delta=0.1)
        True
        >>> is_better(torch.tensor(0.95), torch.tensor(1.0), "min", min_delta=0.1)
        False
    """
    margin = -min_delta if mode == "min" else min_delta
    return bool(torch.isfinite(value) & _OPERATORS[mode](value - margin, best.to(value.device)))


def smooth(average: Tensor | None, value: Tensor, smoothing: float) -> Tensor:
    """Exponential moving average ``a_t = s a_{t-1} + (1 - s) v_t``, starting at the first value.

    Args:
        average: The average so far, shape ``()``, or None at the start.
        value: The new value, shape ``()``. It is ignored if it is NaN or infinite, unless it is the first.
        smoothing: ``s`` in [0, 1); 0 returns ``value``.

    Returns:
        The new average, shape ``()``.

    Example:
        >>> smooth(torch.tensor(1.0), torch.tensor(2.0), smoothing=0.75)
        tensor(1.2500)
    """
    if average is None or not smoothing:
        return value
    if not torch.isfinite(value):
        return average
    return smoothing * average.to(value.device) + (1 - smoothing) * value
