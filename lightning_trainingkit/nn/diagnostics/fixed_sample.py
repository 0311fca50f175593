"""Take the same elements of a layer's output in each call."""

from math import gcd

import torch
from torch import Tensor

__all__ = ["FixedSample"]

_ROWS = 64  # images of a call
_GOLDEN = 0.618034  # multiples of the golden ratio spread evenly over channels and places


class FixedSample:
    """About ``size`` elements of each output: the same positions of evenly spaced images, without a random number.

    Args:
        size: Elements of one call, at most.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._index: dict[tuple[torch.Size, tuple[int, ...], int, torch.device], Tensor] = {}

    def positions(self, y: Tensor) -> int:
        """Number of positions within an image that fit, for images in dimension 0."""
        return min(y[0].numel(), max(1, self.size // self._rows(y)))

    def take(self, y: Tensor, positions: int) -> Tensor:
        """Take the sample.

        Args:
            y: Output with the images in dimension 0.
            positions: Number of positions within an image, at most.

        Returns:
            The sample, shape ``(images, positions)``.
        """
        positions = min(positions, y[0].numel())
        rows = min(self._rows(y), max(1, self.size // positions))
        key = y.shape, y.stride(), positions, y.device
        if key not in self._index:
            if len(self._index) > 8:  # images of ever other sizes
                self._index.clear()
            self._index[key] = _memory_index(y, rows, positions)
        span = 1 + sum((size - 1) * stride for size, stride in zip(y.shape, y.stride(), strict=True))
        # One gather in memory order takes a tenth of the time of indexing by dimensions.
        return y.as_strided((span,), (1,)).index_select(0, self._index[key]).view(rows, positions)

    def _rows(self, y: Tensor) -> int:
        return min(len(y), _ROWS, self.size)


def _memory_index(y: Tensor, rows: int, positions: int) -> Tensor:
    """Where the sample lies in memory, from the first element of ``y``."""
    shape = y.shape[1:]
    step = max(1, round(shape.numel() * _GOLDEN))
    while gcd(step, shape.numel()) != 1:
        step += 1
    flat = torch.arange(positions, device=y.device) * step % shape.numel()
    places = torch.unravel_index(flat, shape)
    within = torch.stack([place * stride for place, stride in zip(places, y.stride()[1:], strict=True)]).sum(0)
    images = torch.arange(rows, device=y.device) * (len(y) // rows * y.stride(0))
    return (images[:, None] + within).flatten()
