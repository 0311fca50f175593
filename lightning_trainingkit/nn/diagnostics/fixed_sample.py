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
        self._index: dict[tuple[torch.Size, int, torch.device], tuple[Tensor, ...]] = {}

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
        shape = y.shape[1:]
        positions = min(positions, shape.numel())
        rows = min(self._rows(y), max(1, self.size // positions))
        key = shape, positions, y.device
        if key not in self._index:
            if len(self._index) > 8:  # images of ever other sizes
                self._index.clear()
            step = max(1, round(shape.numel() * _GOLDEN))
            while gcd(step, shape.numel()) != 1:
                step += 1
            flat = torch.arange(positions, device=y.device) * step % shape.numel()
            self._index[key] = torch.unravel_index(flat, shape)
        every: tuple[slice | Tensor, ...] = (slice(None), *self._index[key])
        return y[:: len(y) // rows][:rows][every]

    def _rows(self, y: Tensor) -> int:
        return min(len(y), _ROWS, self.size)
