"""One call of a module, and whether a later call has the same arguments."""

from collections.abc import Mapping
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from lightning_trainingkit.callbacks.noise.blended_values import same_memory

__all__ = ["RecordedCall", "differ", "flat", "is_differentiated"]

_PLAIN = int | float | str | bytes | Enum | torch.dtype | torch.device | None
"""Values that nobody can change in place."""


class RecordedCall:
    """The arguments and the output of one call. It notices tensors that are changed in place after the call.

    Args:
        mode: What the arguments do not tell, such as the training mode.
        arguments: Flat list of the arguments.
    """

    def __init__(self, mode: Any, arguments: list[Any]) -> None:
        self.mode = mode
        self.used = False
        self._arguments, self._argument_marks = arguments, _marks(arguments)

    def end(self, output: Any) -> None:
        """Keep the output."""
        self._output, self._output_marks = _rebuilt(output), _marks(flat(output))

    def output(self) -> Any:
        """Return the output, in containers of its own."""
        return _rebuilt(self._output)

    def is_same(self, arguments: list[Any]) -> bool:
        """Whether arguments are those of the call, and neither they nor the output were changed since."""
        return self.apart(arguments) == [] and self._argument_marks == _marks(arguments)

    def apart(self, arguments: list[Any]) -> list[tuple[Tensor, Tensor]] | None:
        """Return the pairs of tensors whose values decide whether arguments are the same. None: they are not."""
        if len(arguments) != len(self._arguments) or not self._is_unchanged():
            return None
        pairs = [pair for pair in zip(self._arguments, arguments, strict=True) if not _is_same(*pair)]
        return pairs if all(_has_same_form(*pair) for pair in pairs) else None

    def _is_unchanged(self) -> bool:
        output = flat(self._output)
        known = all(isinstance(each, Tensor | _PLAIN) for each in output)  # an object may hide a change in place
        return known and self._argument_marks == _marks(self._arguments) and self._output_marks == _marks(output)


def flat(value: Any) -> list[Any]:
    """Return what the containers of a value hold, with the keys of dicts."""
    if isinstance(value, Mapping):
        return [leaf for key, each in value.items() for leaf in (key, *flat(each))]
    if isinstance(value, list | tuple):
        return [leaf for each in value for leaf in flat(each)]
    return [value]


def is_differentiated(value: Any) -> bool:
    """Whether a value is an input for whose gradient a step may ask: a shared graph would lead to another input."""
    tensor = isinstance(value, Tensor) and not isinstance(value, nn.Parameter)
    return tensor and value.requires_grad and value.is_leaf


def differ(old: Tensor, new: Tensor) -> Tensor:
    """Whether values differ, as a tensor on their device."""
    if not new.is_floating_point():
        return (new != old).any()
    # The tolerance is for devices that compute the same sum in another order.
    with torch.no_grad():
        return ~torch.isclose(new, old, rtol=1e-4, atol=1e-6, equal_nan=True).all()


def _marks(values: list[Any]) -> list[tuple[int, bool, int]]:
    # A reentrant checkpoint gives a graph to an output that had none. A hook changes the gradient of a tensor.
    tensors = [each for each in values if isinstance(each, Tensor) and not each.is_inference()]
    return [(each._version, each.requires_grad, len(each._backward_hooks or ())) for each in tensors]


def _rebuilt(value: Any) -> Any:
    """Copy the containers, which a step may change, and keep what they hold."""
    if type(value) is dict:
        return {key: _rebuilt(each) for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_rebuilt(each) for each in value)
    return value


def _is_same(old: Any, new: Any) -> bool:
    if isinstance(old, Tensor) and isinstance(new, Tensor):
        return same_memory(old, new)
    if new is old:
        return isinstance(new, _PLAIN) or callable(new)  # other objects may hold the target
    return type(new) is type(old) and isinstance(new, _PLAIN) and bool(new == old)


def _has_same_form(old: Any, new: Any) -> bool:
    if not isinstance(old, Tensor) or not isinstance(new, Tensor):
        return False
    form = (old.shape, old.dtype, old.device, old.requires_grad)
    return form == (new.shape, new.dtype, new.device, new.requires_grad)
