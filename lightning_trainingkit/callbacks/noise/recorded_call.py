"""What a layer was called with, and what it returned."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_trainingkit.callbacks.noise.blended_values import same_memory

__all__ = [
    "RecordedCall",
    "are_same",
    "differ",
    "have_same_form",
    "is_differentiated",
    "is_same",
    "leaves",
    "rebuilt",
    "versions",
]


@dataclass
class RecordedCall:
    """One call of a module in the first call of the step. Versions tell which tensors were changed in place since."""

    arguments: list[Any]
    argument_versions: list[int]
    output: Any
    output_versions: list[int]
    weights: list[int]
    used: bool = False

    def is_unchanged(self) -> bool:
        """Whether no argument and no output was changed in place."""
        output = leaves(self.output)
        return self.argument_versions == versions(self.arguments) and self.output_versions == versions(output)


def leaves(value: Any) -> list[Any]:
    """Return what containers hold, and the keys of dicts."""
    if isinstance(value, Mapping):
        return [leaf for key, each in value.items() for leaf in (key, *leaves(each))]
    if isinstance(value, list | tuple):
        return [leaf for each in value for leaf in leaves(each)]
    return [value]


def rebuilt(value: Any) -> Any:
    """Copy the containers, which a step may change, and keep what they hold."""
    if type(value) is dict:
        return {key: rebuilt(each) for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(rebuilt(each) for each in value)
    return value


def versions(leaves: list[Any]) -> list[int]:
    """Return counts of the changes in place."""
    return [each._version for each in leaves if isinstance(each, Tensor) and not each.is_inference()]


def are_same(record: RecordedCall, arguments: list[Any]) -> bool:
    """Whether a module gets the very arguments of a recorded call, unchanged."""
    old = record.arguments
    same = len(old) == len(arguments) and all(is_same(*pair) for pair in zip(old, arguments, strict=True))
    return same and record.is_unchanged() and record.argument_versions == versions(arguments)


def is_differentiated(value: Any) -> bool:
    """Whether a step may ask for the gradient of an argument: of images, say, and not of a parameter."""
    return isinstance(value, Tensor) and value.requires_grad and value.is_leaf and not isinstance(value, nn.Parameter)


def is_same(old: Any, new: Any) -> bool:
    """Whether two values are the same view of the same memory, or equal numbers or strings."""
    if isinstance(old, Tensor) and isinstance(new, Tensor):
        return same_memory(old, new)
    return new is old or (type(new) is type(old) and isinstance(new, int | float | str | torch.dtype) and new == old)


def have_same_form(old: Any, new: Any) -> bool:
    """Whether two values are tensors of the same shape and type."""
    return (
        isinstance(old, Tensor)
        and isinstance(new, Tensor)
        and (old.shape, old.dtype, old.device, old.requires_grad)
        == (new.shape, new.dtype, new.device, new.requires_grad)
    )


def differ(old: Tensor, new: Tensor) -> Tensor:
    """Whether two tensors differ, as a tensor: the host does not wait."""
    # The tolerance is for devices that compute the same sum in another order.
    with torch.no_grad():
        return ~torch.isclose(new, old, rtol=1e-4, atol=1e-6, equal_nan=True).all()
