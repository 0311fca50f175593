"""Write a layer's weight, held as a parameter or by a parametrisation."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

__all__ = ["weight_fault", "fill_", "weight_holder", "weight_std"]


def weight_holder(layer: nn.Module) -> int:
    """Return the ``id`` of the parameter or parametrisation that holds the weight. Tied layers share it."""
    return id(layer.parametrizations.weight if is_parametrized(layer, "weight") else layer.weight)  # type: ignore[union-attr]


def weight_fault(layer: nn.Module) -> str | None:
    """Return the reason why the weight cannot be initialised, or None if it can."""
    if not is_parametrized(layer, "weight"):
        found: Any = layer._parameters.get("weight")
        if is_lazy(found):
            return "must have a shape, got a lazy layer. Call the model once on a batch before the fit."
        if not isinstance(found, nn.Parameter):
            return (
                "must hold its weight as a parameter or through torch.nn.utils.parametrize, got one that a hook "
                "computes. Take off the old weight_norm, spectral_norm or pruning, or leave the layer out."
            )
    weight: Any = layer.weight
    if weight.is_meta:
        return "must have storage, got a weight on the meta device. Make it on a real device in `configure_model`."
    if not weight.numel():
        return f"must have inputs and outputs, got a weight of shape {tuple(weight.shape)}. Leave the layer out."
    if not weight.is_floating_point():
        return f"must have a floating-point weight, got {weight.dtype}. Leave the layer out."
    return None


@torch.no_grad()
def fill_(layer: nn.Module, name: str, fill: Callable[[Tensor], Any]) -> None:
    """Fill a layer's weight or bias. A parametrised tensor is assigned, so that its parametrisation inverts it.

    Raises:
        ValueError: If the parametrisation cannot be inverted, or ``fill`` returns another tensor than its argument.
    """
    tensor = getattr(layer, name)
    value = tensor.clone() if is_parametrized(layer, name) else tensor
    result = fill(value)
    if isinstance(result, Tensor) and result.data_ptr() != value.data_ptr():
        raise ValueError("must be filled in place, got a new tensor. Write w.copy_(...) in the function.")
    if value is not tensor:
        try:
            setattr(layer, name, value)
        except (NotImplementedError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"must have a parametrisation with a `right_inverse` for this scheme, got {error} "
                "Initialise before it is registered, or leave the layer out."
            ) from error


def weight_std(layer: nn.Module) -> float:
    """Return the population standard deviation of the weight's entries."""
    weight: Any = layer.weight
    whole = weight.full_tensor() if hasattr(weight, "full_tensor") else weight  # for a DTensor
    return float(whole.detach().float().std(correction=0))
