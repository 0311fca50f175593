"""Find frozen layers, and frozen copies of trainable layers."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from lightning_trainingkit.nn.initialization.layer_weight import weight_fault

__all__ = ["find_copies", "is_frozen"]


def is_frozen(layer: nn.Module) -> bool:
    """Whether no parameter of the weight requires a gradient, or of the layer if a hook computes the weight."""
    parts: list[nn.Parameter]
    if is_parametrized(layer, "weight"):
        parts = list(layer.parametrizations.weight.parameters())  # type: ignore[union-attr]
    elif isinstance(weight := layer._parameters.get("weight"), nn.Parameter):
        parts = [weight]
    else:  # a hook computes the weight from other parameters
        parts = list(layer.parameters(recurse=False))
    return not any(each.requires_grad for each in parts)


@torch.no_grad()
def find_copies(candidates: Mapping[str, nn.Module], sources: Mapping[str, nn.Module]) -> dict[str, str]:
    """Find the candidates whose weight is bit-equal to a source's weight.

    A constant weight (zeros, ones) is no copy. Several sources may be equal, such as the cloned layers of a
    ``nn.TransformerEncoder``. The source with the most equal last parts of the name then counts.

    Args:
        candidates: Layers by name, which may be copies.
        sources: Layers by name, which may be copied.

    Returns:
        Name of each copy to the name of its source.

    Example:
        >>> import copy
        >>> net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        >>> target = copy.deepcopy(net)
        >>> find_copies({"target.1": target[1]}, {"net.0": net[0], "net.1": net[1]})
        {'target.1': 'net.1'}
    """
    weights = {name: _weight(layer) for name, layer in sources.items() if not weight_fault(layer)}
    found: dict[str, str] = {}
    for name, layer in candidates.items():
        if weight_fault(layer):
            continue
        weight = _weight(layer)
        equal = [each for each, other in weights.items() if _same(weight, other)]
        if equal and bool((weight != weight.flatten()[0]).any()):
            found[name] = max(equal, key=lambda each: _common_end(each, name))
    return found


def _weight(layer: nn.Module) -> Tensor:
    weight: Tensor = layer.weight  # type: ignore[assignment]
    return weight


def _same(one: Tensor, other: Tensor) -> bool:
    kinds = [(each.shape, each.dtype, each.device) for each in (one, other)]
    return kinds[0] == kinds[1] and torch.equal(one, other)


def _common_end(one: str, other: str) -> int:
    """Number of equal last parts of two dotted names."""
    pairs = zip(reversed(one.split(".")), reversed(other.split(".")), strict=False)
    return next((count for count, (a, b) in enumerate(pairs) if a != b), min(one.count("."), other.count(".")) + 1)
