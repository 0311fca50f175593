"""Statistics of activations, from sums that merge over calls and ranks by addition."""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "SATURATION",
    "ActivationSummary",
    "between_images",
    "dead_share",
    "derivative_from_output",
    "histogram",
    "histogram_edges",
    "histogram_range",
    "mean_and_std",
    "rebin",
    "saturated",
]

SATURATION: dict[str, float] = {
    "sigmoid": 0.0125,
    "tanh": 0.05,
    "softsign": 0.05,
    "hardsigmoid": 1 / 120,
    "hardtanh": 0.05,
}
"""Name of an activation to the bound below which ``|f'|`` counts as saturated: 5 % of the largest ``|f'|``."""


@dataclass(frozen=True)
class ActivationSummary:
    """What a layer put out in one window of forward passes.

    Args:
        calls: Number of calls of the layer.
        images: Number of images over all calls.
        mean: Mean over all elements.
        std: Standard deviation over all elements, with the divisor ``n``.
        min: Smallest element.
        max: Largest element.
        saturated: Share of sampled elements with ``|f'|`` below its bound. None if the activation cannot saturate.
        dead: Share of units that are zero on every image of the window.
        positive: Share of sampled elements above zero.
        between_images: Standard deviation of a unit over images, root mean square over the sampled units.
        finite: Whether all elements are finite.
        counts: Histogram of the sampled elements.
        edges: Edges of its bins, one more than bins. The outer ones reach to ``min`` and ``max``.
    """

    calls: int
    images: int
    mean: float
    std: float
    min: float
    max: float
    saturated: float | None
    dead: float
    positive: float
    between_images: float
    finite: bool
    counts: list[int]
    edges: list[float]


def derivative_from_output(name: str, y: Tensor, low: float = -1.0, high: float = 1.0) -> Tensor:
    """Compute ``|f'(z)|`` of an activation from its output ``y = f(z)``.

    Args:
        name: A key of ``SATURATION``.
        y: Outputs of any shape, floating point.
        low: Lower bound of ``hardtanh``.
        high: Upper bound of ``hardtanh``.

    Example:
        >>> derivative_from_output("sigmoid", torch.tensor([0.5, 1.0])).tolist()
        [0.25, 0.0]
    """
    if name == "sigmoid":
        return y * (1 - y)
    if name == "tanh":
        return 1 - y.square()
    if name == "softsign":
        return (1 - y.abs()).square()
    if name == "hardsigmoid":
        return ((y > 0) & (y < 1)).to(y.dtype) / 6
    if name == "hardtanh":
        return ((y > low) & (y < high)).to(y.dtype)
    raise ValueError(f"`name` must be one of {', '.join(SATURATION)}, got {name!r}. Other activations don't saturate.")


def saturated(name: str, y: Tensor, low: float = -1.0, high: float = 1.0) -> Tensor:
    """Tell for each output of an activation whether ``|f'|`` is below its bound in ``SATURATION``.

    Args:
        name: A key of ``SATURATION``.
        y: Outputs of any shape, floating point.
        low: Lower bound of ``hardtanh``.
        high: Upper bound of ``hardtanh``.

    Example:
        >>> saturated("tanh", torch.tensor([-0.99, 0.0, 0.9])).tolist()
        [True, False, False]
    """
    return derivative_from_output(name, y, low, high) < SATURATION[name]


def dead_share(alive: Tensor) -> Tensor:
    """Share of units that were never alive.

    Args:
        alive: True for each unit that was not zero on some image.

    Example:
        >>> dead_share(torch.tensor([True, False, True, True])).item()
        0.25
    """
    return 1 - alive.double().mean()


def mean_and_std(count: Tensor, total: Tensor, squares: Tensor) -> tuple[Tensor, Tensor]:
    """Compute mean and standard deviation, with the divisor ``n``, from sums.

    Sums of several parts merge by addition. A standard deviation far below the mean loses digits:
    sums in float64 are right while it is above 1e-6 of the mean.

    Args:
        count: Number of elements.
        total: Their sum, float64.
        squares: Sum of their squares, float64.

    Example:
        >>> [value.item() for value in mean_and_std(*torch.tensor([2.0, 4.0, 10.0]))]
        [2.0, 1.0]
    """
    mean = total / count
    return mean, (squares / count - mean.square()).clamp_min(0).sqrt()


def between_images(count: Tensor, total: Tensor, squares: Tensor) -> Tensor:
    """Compute the standard deviation over images of each unit, and its root mean square over units.

    Args:
        count: Number of images of each unit, shape ``(units,)``.
        total: Sum over images, float64.
        squares: Sum of squares over images, float64.

    Example:
        >>> count, total, squares = torch.tensor([[2.0, 2.0], [4.0, 14.0], [10.0, 196.0]])  # units 1, 3 and 0, 14
        >>> between_images(count, total, squares).item()
        5.0
    """
    return mean_and_std(count, total, squares)[1].square().mean().sqrt()


def histogram_range(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Make a range with a positive width: one value gets 0.5 on either side; without finite values it is [-0.5, 0.5].

    Args:
        low: Smallest value, 0-d.
        high: Largest value, 0-d.
    """
    known = torch.isfinite(low) & torch.isfinite(high) & torch.isfinite(high - low)
    low, high = torch.where(known, low, 0), torch.where(known, high, 0)
    half = torch.where(high > low, 0, 0.5 * low.abs().clamp_min(1))
    return low - half, high + half


def histogram(values: Tensor, bins: int, low: Tensor, high: Tensor) -> Tensor:
    """Count values in equal bins, without a copy to the host. The outer bins also count what lies outside.

    Args:
        values: Values of any shape, floating point. NaN is not counted.
        bins: Number of bins.
        low: Lower end of the range, 0-d.
        high: Upper end, above ``low``.

    Returns:
        Integer counts of shape ``(bins,)``.

    Example:
        >>> histogram(torch.tensor([0.1, 0.2, 0.9, 7.0]), 2, torch.tensor(0.0), torch.tensor(1.0)).tolist()
        [2, 2]
    """
    flat = values.flatten()
    bin_of = ((flat - low) * (bins / (high - low))).clamp(0, bins - 1).nan_to_num(0).long()
    return torch.zeros(bins, dtype=torch.long, device=flat.device).index_add_(0, bin_of, (~flat.isnan()).long())


def histogram_edges(bins: int, low: float, high: float) -> Tensor:
    """Edges of equal bins between ``low`` and ``high``, shape ``(bins + 1,)``, float64."""
    return torch.linspace(low, high, bins + 1, dtype=torch.float64)


def rebin(counts: Tensor, low: Tensor, high: Tensor, new_low: Tensor, new_high: Tensor) -> Tensor:
    """Move the counts of equal bins to the bins of another range, by their centres.

    Args:
        counts: Counts of shape ``(bins,)``.
        low: Lower end of their range, 0-d.
        high: Upper end.
        new_low: Lower end of the other range.
        new_high: Upper end.

    Example:
        >>> ends = [torch.tensor(value) for value in (0.0, 1.0, 0.0, 2.0)]
        >>> rebin(torch.tensor([3, 1, 2, 5]), *ends).tolist()
        [4, 7, 0, 0]
    """
    bins = len(counts)
    centres = low + (high - low) * (torch.arange(bins, device=counts.device) + 0.5) / bins
    bin_of = ((centres - new_low) * (bins / (new_high - new_low))).clamp(0, bins - 1).nan_to_num(0).long()
    return torch.zeros_like(counts).index_add_(0, bin_of, counts)
