"""Sums of each image and channel, collected over many small batches before they are merged."""

import torch
from torch import Tensor

__all__ = ["ChannelSums"]

_BATCHES = 64  # that are collected: each small operation takes as long as the sum over a batch of small images
_SMALL = 4096  # pixels that torch's norm sums in float32 without a loss of digits


class ChannelSums:
    """Collect sums and squares of float images for each image and channel.

    A shift is subtracted first where the mean is far from zero, since squares would lose digits. Other images are
    read as they are, which saves a copy.
    """

    def __init__(self) -> None:
        self.images = self.pixels = 0
        self.shift: Tensor | None = None
        self._sums: list[Tensor] = []
        self._roots: list[Tensor] = []

    def add(self, x: Tensor) -> bool:
        """Collect the sums of a batch ``(N, C, H, W)``, float32 or float64. Return whether it is time to ``take``."""
        images, _, height, width = x.shape
        self.images += images
        self.pixels = height * width
        if self.shift is not None:
            x = x - self.shift.to(x.dtype)[:, None, None]
        self._sums.append(x.sum((2, 3)))
        # The root is exact enough for few pixels and takes half of the time. `take` squares it in float64.
        small = self.pixels <= _SMALL
        self._roots.append(torch.linalg.vector_norm(x, dim=(2, 3)) if small else x.square().sum((2, 3)).sqrt_())
        return len(self._sums) >= _BATCHES

    def take(self) -> tuple[Tensor, Tensor]:
        """Return sums and sums of squares ``(N, C)`` in float64, less the shift, and begin again."""
        sums, roots = torch.cat(self._sums).double(), torch.cat(self._roots).double()
        self._sums, self._roots, self.images = [], [], 0
        return sums, roots.square_()
