"""Layers whose units are all alike, so that they stay alike."""

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["spread_between_units"]

_CLOSE = 0.1  # a smaller spread of the sample is checked on all weights
_SAMPLE = 64  # units, and weights of each


@torch.no_grad()
def spread_between_units(weights: Mapping[str, Tensor]) -> dict[str, float]:
    """Largest difference between a unit's incoming weights and those of the first unit, relative to the largest weight.

    Units with equal incoming weights compute the same and get the same gradient: 0 is the lecture's constant
    initialisation, which breaks no symmetry. A spread of 0.1 and more is that of at most 64 x 64 weights, evenly
    spread.

    Args:
        weights: Name to a weight of shape ``(units, ...)``. Fewer than two units, or one weight a unit, are left out.

    Returns:
        Name to the spread, 0 or positive; 0 too where all weights are 0.

    Example:
        >>> spread_between_units({"a": torch.ones(3, 2), "b": torch.eye(2)})
        {'a': 0.0, 'b': 1.0}
    """
    tables = {name: weight.flatten(1) for name, weight in weights.items() if weight.dim() > 1 and weight.numel()}
    tables = {name: table for name, table in tables.items() if len(table) > 1 and table.shape[1] > 1}
    found = _spreads({name: _sample(table) for name, table in tables.items()})
    close = {name: tables[name] for name, spread in found.items() if not spread > _CLOSE}
    return found | _spreads(close)


def _sample(table: Tensor) -> Tensor:
    units, columns = (max(1, size // _SAMPLE) for size in table.shape)
    return table[: units * _SAMPLE : units, : columns * _SAMPLE : columns]


def _spreads(tables: Mapping[str, Tensor]) -> dict[str, float]:
    """The spread of each table, in one transfer from the device."""
    if not tables:
        return {}
    parts = [(table - table[:1]).abs().amax().float() for table in tables.values()]
    sizes = [table.abs().amax().float() for table in tables.values()]
    device = parts[0].device
    found, size = (torch.stack([each.to(device) for each in values]) for values in (parts, sizes))
    return dict(zip(tables, torch.where(size > 0, found / size, found).tolist(), strict=True))
