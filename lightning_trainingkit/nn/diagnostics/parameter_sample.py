"""A fixed sample of the elements of each parameter, in buffers that are made once."""

from collections.abc import Sequence
from math import ceil

import torch
from torch import Tensor

__all__ = ["ParameterSample"]

_LEAST_ROWS = 8


class ParameterSample:
    """Copies of sampled elements: of the gradients, of the parameters before a step, and of their change.

    The sample of a parameter holds whole rows (the first dimension) at equal distances: about ``size`` elements, at
    least 8 rows. No random number is drawn.

    Args:
        parameters: The parameters, which fix shapes, strides and devices.
        size: Number of elements to sample of each parameter, about.

    Example:
        >>> weight = torch.arange(6.0).reshape(3, 2)
        >>> sample = ParameterSample([weight], 100)
        >>> sample.keep("before", [0], [weight])
        >>> sample.views("before", [0])
        [tensor([[0., 1.],
                [2., 3.],
                [4., 5.]])]
    """

    def __init__(self, parameters: Sequence[Tensor], size: int) -> None:
        self._orders = [_order(each) for each in parameters]
        self._steps = [_step(each, size) for each in parameters]
        shapes = [self._sampled(number, each).shape for number, each in enumerate(parameters)]
        sizes = [shape.numel() for shape in shapes]
        self.shares = [size / each.numel() for size, each in zip(sizes, parameters, strict=True)]
        device = parameters[0].device
        kind = torch.float64 if any(each.dtype == torch.float64 for each in parameters) else torch.float32
        self._flat = {
            name: torch.zeros(sum(sizes), dtype=kind, device=device) for name in ("gradient", "before", "work")
        }
        self._views = {
            name: [part.view(shape) for part, shape in zip(torch.split(flat, sizes), shapes, strict=True)]
            for name, flat in self._flat.items()
        }

    def views(self, name: str, numbers: Sequence[int]) -> list[Tensor]:
        """The buffers of some parameters: ``"gradient"``, ``"before"`` or ``"work"``."""
        return [self._views[name][number] for number in numbers]

    def keep(self, name: str, numbers: Sequence[int], tensors: Sequence[Tensor]) -> None:
        """Copy the sampled elements of tensors that belong to these parameters into a buffer."""
        parts = [self._sampled(number, tensor) for number, tensor in zip(numbers, tensors, strict=True)]
        torch._foreach_copy_(self.views(name, numbers), parts)

    def descent(self, numbers: Sequence[int], parameters: Sequence[Tensor]) -> list[Tensor]:
        """How far the parameters have moved down since ``keep("before", ...)``: before minus now."""
        self.keep("work", numbers, parameters)
        torch.sub(self._flat["before"], self._flat["work"], out=self._flat["work"])
        return self.views("work", numbers)

    def _sampled(self, number: int, tensor: Tensor) -> Tensor:
        order, step = self._orders[number], self._steps[number]
        rows = tensor if order is None else tensor.permute(order)
        return rows if step == 1 else rows[::step]


def _order(parameter: Tensor) -> list[int] | None:
    """Dimensions in the order of memory, the first one first: rows are then read as they lie."""
    strides = parameter.stride()
    order = [0, *sorted(range(1, parameter.dim()), key=lambda each: -strides[each])]
    return order if order[1:] != list(range(1, parameter.dim())) else None


def _step(parameter: Tensor, size: int) -> int:
    if parameter.numel() <= size or parameter.dim() == 0:
        return 1
    rows = len(parameter)
    wanted = max(_LEAST_ROWS, size * rows // parameter.numel())
    return max(1, ceil(rows / wanted))
