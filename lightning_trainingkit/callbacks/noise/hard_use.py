"""Notice where a training step takes soft targets for class indices, which gives a wrong number without an error."""

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["HardUse"]

_COMPARISONS = (torch.eq, torch.ne, Tensor.eq, Tensor.ne, Tensor.__eq__, Tensor.__ne__)
_CONVERSIONS = (Tensor.bool, Tensor.int, Tensor.long, Tensor.to)


class HardUse(TorchFunctionMode):
    """Notice that soft targets are compared with other tensors, or converted to integers.

    Args:
        soft: The soft targets.

    Attributes:
        what: What the step does with them, None if nothing of this kind.
    """

    def __init__(self, soft: Tensor) -> None:
        super().__init__()
        self._memory = soft.untyped_storage().data_ptr()
        self.what: str | None = None

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function of torch, and look at its arguments. It cannot raise: torch turns a TypeError into False."""
        result = function(*args, **(kwargs or {}))
        compares, converts = function in _COMPARISONS, function in _CONVERSIONS and not result.is_floating_point()
        if compares or converts:
            tensors = [each for each in (*args, *(kwargs or {}).values()) if isinstance(each, Tensor)]
            soft = [self._is_soft(each) for each in tensors]
            if any(soft) and (converts or not all(soft)):
                self.what = "converts them to integers" if converts else "compares them with predictions"
        return result

    def _is_soft(self, value: Tensor) -> bool:
        try:
            return value.is_floating_point() and value.untyped_storage().data_ptr() == self._memory
        except (NotImplementedError, RuntimeError):  # sparse, or inside of torch.func
            return False
