"""Flips, shifts and crops: copies of whole pixels, bit for bit."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_trainingkit.functional.augmentation_draws import AugmentationDraws
from lightning_trainingkit.functional.augmentation_maps import to_device

__all__ = ["WholePixels", "copy_pixels", "whole_pixels"]


@dataclass(frozen=True)
class WholePixels:
    """Rows and columns of the images from which the result copies, on the device.

    Args:
        width: Width of the images.
        rows: Row of the image for each row of the result, ``(N, H')``.
        columns: Column of the image for each column of the result, ``(N, W')``.
        rows_inside: Whether a row is in the image, ``(N, H')``, or None if all are.
        columns_inside: Whether a column is in the image, ``(N, W')``, or None if all are.
    """

    width: int
    rows: Tensor
    columns: Tensor
    rows_inside: Tensor | None
    columns_inside: Tensor | None

    def index(self, part: slice) -> tuple[Tensor, Tensor | None]:
        """Index ``(n, H', W')`` of the pixel to copy for some images, and whether there is one; None if all are."""
        index = self.rows[part, :, None] * self.width + self.columns[part, None]
        if self.rows_inside is None or self.columns_inside is None:
            return index, None
        return index, self.rows_inside[part, :, None] & self.columns_inside[part, None]


def whole_pixels(draws: AugmentationDraws, output: tuple[int, int], device: torch.device, reflect: bool) -> WholePixels:
    """Compose flips, translation and crop of ``N`` images into rows and columns to copy."""
    columns, columns_inside = _along(0, draws.horizontal_flip, draws, output[1], device, reflect)
    rows, rows_inside = _along(1, draws.vertical_flip, draws, output[0], device, reflect)
    return WholePixels(draws.size[1], rows, columns, rows_inside, columns_inside)


def _along(
    axis: int,
    flip: Tensor | None,
    draws: AugmentationDraws,
    wanted: int,
    device: torch.device,
    reflect: bool,
) -> tuple[Tensor, Tensor | None]:
    """Index along x (0) or y (1) for each pixel of the result, and whether it is inside."""
    side = draws.size[1 - axis]
    start = torch.zeros(len(draws), dtype=torch.int64)
    if draws.crop is not None:
        start = start + draws.crop[:, axis]
    if draws.translation is not None:
        start = start - draws.translation[:, axis]
    step = torch.ones_like(start)
    if flip is not None:
        start, step = torch.where(flip, side - 1 - start, start), torch.where(flip, -1, 1)
    start, step = to_device(torch.stack((start, step)), device)[..., None]
    index = start + step * torch.arange(wanted, device=device)
    if reflect:
        return side - 1 - (index.remainder(max(2 * side - 2, 1)) - side + 1).abs(), None
    return index.clamp(0, side - 1), (index >= 0) & (index < side)


def copy_pixels(images: Tensor, index: Tensor, inside: Tensor | None, fill: float | Tensor) -> Tensor:
    """Copy the pixels of images ``(N, C, H, W)`` of any dtype; where none is inside, write the fill."""
    count, channels = images.shape[:2]
    flat = index.flatten(1)[:, None].expand(count, channels, -1)
    result = images.flatten(2).gather(2, flat).view(count, channels, *index.shape[1:])
    if inside is None:
        return result
    if isinstance(fill, Tensor):
        return torch.where(inside[:, None], result, fill)
    return result.masked_fill_(~inside[:, None], fill)
