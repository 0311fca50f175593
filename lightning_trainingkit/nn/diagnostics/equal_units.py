"""Layers whose units are all alike, so that they stay alike."""

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["spread_between_units"]


@torch.no_grad()
def spread_between_units(weights: Mapping[str, Tensor]) -> dict[str, float]:
    """Largest difference between a unit's incoming weights and those of the first unit, relative to the largest weight.

    Units with equal incoming weights compute the same and get the same gradient: 0 is the lecture's constant
    initialisation, which breaks no symmetry.

    Args:
        weights: Name to a weight of shape ``(units, ...)``. Fewer than two units, or one weight a unit, are left out.

    Returns:
        Name to the spread, 0 or positive; 0 too where all weights are 0.

    Example:
        >>> spread_between_units({"a": torch.ones(3, 2), "b": torch.eye(2)})
        {'a': 0.0, 'b': 1.0}
    """
    names = [name for name, weight in weights.items() if weight.dim() > 1 and len(weight) > 1 and weight[0].numel() > 1]
    if not names:
        return {}
    parts = [(weights[name] - weights[name][:1]).abs().amax().float() for name in names]
    sizes = [weights[name].abs().amax().float() for name in names]
    device = parts[0].device
    found, size = (torch.stack([each.to(device) for each in values]) for values in (parts, sizes))
    return dict(zip(names, torch.where(size > 0, found / size, found).tolist(), strict=True))
