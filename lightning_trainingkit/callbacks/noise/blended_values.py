"""Blend what two calls of a training step return and log."""

from collections.abc import Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor

__all__ = ["blend_values", "same_memory"]


def blend_values(first: Any, second: Any, weight: float, name: str, *, counts: bool = False) -> Any:
    """Blend two values: ``weight * first + (1 - weight) * second``, in each entry of dicts, lists and tuples.

    Equal values stay as they are, to the last bit.

    Args:
        first: Tensor, number, None, or a dict, list or tuple of these.
        second: Value of the same structure.
        weight: Share of the first value.
        name: What the values are, for errors.
        counts: Whether tensors of integers are numbers of something, which have a blend.

    Raises:
        TypeError: If the values have no blend.

    Example:
        >>> blend_values({"loss": 1.0, "name": "a"}, {"loss": 3.0, "name": "a"}, 0.25, "training_step")
        {'loss': 2.5, 'name': 'a'}
    """
    if first is second:
        return first
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        if same_memory(first, second):
            return first
        if first.shape == second.shape and (counts or first.is_floating_point()):
            first, second = (each if each.is_floating_point() else each.float() for each in (first, second))
            return torch.lerp(second, first.to(second.dtype), weight)
    elif _is_number(first) and _is_number(second):
        return first if first == second else weight * first + (1 - weight) * second
    elif isinstance(first, Mapping) and isinstance(second, Mapping) and first.keys() == second.keys():
        return {key: blend_values(first[key], second[key], weight, f"{name}[{key!r}]", counts=counts) for key in first}
    elif isinstance(first, list | tuple) and type(first) is type(second) and len(first) == len(second):
        pairs = zip(first, second, strict=True)
        blended = [blend_values(*pair, weight, f"{name}[{i}]", counts=counts) for i, pair in enumerate(pairs)]
        return type(first)._make(blended) if hasattr(first, "_make") else type(first)(blended)
    elif isinstance(first, str | bool) and first == second:
        return first
    raise TypeError(
        f"`{name}` must be a float tensor or a number for both targets of a blend, got {_describe(first)} and "
        f"{_describe(second)}. Leave it out, or use targets='soft', which calls the step once."
    )


def same_memory(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors are the same view of the same memory, with or without a graph both."""
    return first is second or (
        first.layout == second.layout == torch.strided
        and first.shape == second.shape
        and first.dtype == second.dtype
        and first.device == second.device
        and first.requires_grad == second.requires_grad
        and first.numel() > 0
        and first.data_ptr() == second.data_ptr()
        and first.stride() == second.stride()
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    return repr(value) if isinstance(value, str | Real) or value is None else type(value).__name__
