"""Splits of a labelled data set."""

import torch
from torch import Tensor

from lightning_trainingkit.functional import _check

__all__ = ["stratified_split"]


def stratified_split(
    targets: Tensor, fraction: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Split examples in two parts, each class in the same proportion.

    - **A class** of ``n`` examples gives ``floor(fraction * n)`` or one more to the second part.
    - **Both parts** get at least one example of each class with ``n >= 2``.
    - **The second part** has ``round(fraction * N)`` examples in all, unless the rule before forbids it.

    Args:
        targets: Class indices, shape ``(N,)``.
        fraction: Share of the second part, between 0 and 1, both excluded.
        generator: Source of the draws, on the CPU. The same seed gives the same split on every rank.

    Returns:
        The indices of the first and of the second part, both ascending. Each index is in one part.

    Raises:
        ValueError: If ``targets`` is empty or not one-dimensional, or if ``fraction`` is outside its range.

    Example:
        >>> import torch
        >>> train, val = stratified_split(torch.tensor([0] * 8 + [1] * 4), 0.25, torch.Generator().manual_seed(0))
        >>> len(train), torch.bincount((torch.arange(12) >= 8).long()[val])
        (9, tensor([2, 1]))
    """
    if targets.ndim != 1 or not len(targets):
        raise ValueError(
            f"`targets` must be one label per example, got shape {tuple(targets.shape)}. Nothing to split."
        )
    _check.share("fraction", fraction, "Try 0.1.")
    shuffled = torch.randperm(len(targets), generator=generator)
    _, label, count = torch.unique(targets.cpu()[shuffled], return_inverse=True, return_counts=True)
    taken = _shares(count, fraction, generator)

    by_class = label.argsort(stable=True)  # positions in `shuffled`, class after class
    rank = torch.arange(len(targets)) - (count.cumsum(0) - count).repeat_interleave(count)
    in_second = torch.empty(len(targets), dtype=torch.bool)
    in_second[shuffled[by_class]] = rank < taken.repeat_interleave(count)
    return (~in_second).nonzero().flatten(), in_second.nonzero().flatten()


def _shares(count: Tensor, fraction: float, generator: torch.Generator | None) -> Tensor:
    """Divide the second part among the classes by largest remainder, within the bounds of each class."""
    exact = count.double() * fraction
    spare = torch.where(count >= 2, count - 1, count)
    taken = (exact + 1e-9).floor().long().clamp((count >= 2).long(), spare)  # 0.29 * 100 is 28.999999999999996
    missing = max(0, round(int(count.sum()) * fraction) - int(taken.sum()))

    order = torch.randperm(len(count), generator=generator)  # which of equal classes gets one more
    remainder = (exact - taken)[order]
    may_grow = (remainder > 1e-9) & (taken < spare)[order]
    by_remainder = remainder.masked_fill(~may_grow, -torch.inf).argsort(descending=True, stable=True)
    taken[order[by_remainder[: min(missing, int(may_grow.sum()))]]] += 1
    return taken
