"""The geometry of images as one grid, and one interpolation at it."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from lightning_trainingkit.functional.augmentation_draws import AugmentationDraws
from lightning_trainingkit.functional.augmentation_lens import distort
from lightning_trainingkit.functional.augmentation_maps import lens_to_image, result_to_lens, to_device

__all__ = ["Geometry", "geometry_of", "interpolate", "nearest_pixels"]


@dataclass(frozen=True)
class Geometry:
    """Maps from the pixels of the result to places in the images, on the device.

    Args:
        size: Height and width of the images.
        output: Height and width of the result.
        matrix: From the lens, or the result where there is no lens, to -1 to 1 in the image, ``(N, 3, 3, 1, 1)``.
        perspective: Whether the last row of the matrix counts.
        lens: Coefficients, ``(N, 1, 1, 5)``, or None.
        offset: From the centre of the result to the centre of the image, in half diagonals, ``(N, 2, 1, 1)``.
    """

    size: tuple[int, int]
    output: tuple[int, int]
    matrix: Tensor
    perspective: bool
    lens: Tensor | None
    offset: Tensor

    def grid(self, part: slice) -> Tensor:
        """Where each pixel of some results looks: (x, y) from -1 to 1 between the borders, ``(n, H', W', 2)``."""
        rows, device, dtype = self.matrix[part], self.matrix.device, self.matrix.dtype
        x = torch.arange(self.output[1], device=device, dtype=dtype) - (self.output[1] - 1) / 2
        y = (torch.arange(self.output[0], device=device, dtype=dtype) - (self.output[0] - 1) / 2)[:, None]
        if self.lens is not None:
            unit, offset = (self.size[0] ** 2 + self.size[1] ** 2) ** 0.5 / 2, self.offset[part]
            x, y = distort(x / unit + offset[:, 0], y / unit + offset[:, 1], self.lens[part])
            x, y = x * unit, y * unit
        grid = torch.empty((len(rows), *self.output, 2), device=device, dtype=dtype)
        for k in (0, 1):  # written in place: a quarter of the time of a matrix product
            torch.addcmul(rows[:, k, 2] + rows[:, k, 1] * y, rows[:, k, 0], x, out=grid[..., k])
        if self.perspective:
            depth = torch.addcmul(rows[:, 2, 2] + rows[:, 2, 1] * y, rows[:, 2, 0], x)
            grid /= depth.clamp_(min=1e-6)[..., None]  # beyond the horizon: far outside
        return grid


def geometry_of(
    draws: AugmentationDraws, output: tuple[int, int], device: torch.device, dtype: torch.dtype
) -> Geometry:
    """Compose the geometry of ``N`` images, in double precision on the CPU, and move it to the device."""
    height, width = draws.size
    matrix, offset = lens_to_image(draws), result_to_lens(draws, output)
    if draws.lens is None:
        matrix[:, :, 2] += (matrix[:, :, :2] @ offset[:, :, None])[:, :, 0]
    matrix[:, 0] *= 2 / width
    matrix[:, 1] *= 2 / height
    return Geometry(
        draws.size,
        output,
        to_device(matrix, device, dtype)[..., None, None],
        perspective=draws.corners is not None,
        lens=None if draws.lens is None else to_device(draws.lens, device, dtype)[:, None, None],
        offset=to_device(offset / ((width**2 + height**2) ** 0.5 / 2), device, dtype)[..., None, None],
    )


def interpolate(images: Tensor, grid: Tensor, reflect: bool, fill: float | Tensor) -> Tensor:
    """Interpolate images ``(N, C, H, W)`` linearly at a grid ``(N, H', W', 2)``.

    Args:
        images: Images, in the dtype of the grid.
        grid: Places from -1 to 1.
        reflect: Whether images continue as their mirror images, about the centre of the last pixel.
        fill: Value outside the images, a number or ``(C, 1, 1)``.
    """
    filled = not reflect and not (isinstance(fill, float) and fill == 0)
    if reflect:
        grid = _pixels_to_grid(_fold(_grid_to_pixels(grid, images), images), images)
    elif filled:  # grid_sample puts 0 outside
        images = images - fill
    if not filled and images.device.type == "cpu":
        images = images.clone()  # reads the images in order into the cache: less than half the time for 224 pixels
    result = grid_sample(images, grid, align_corners=False)
    return result.add_(fill) if filled else result


def nearest_pixels(grid: Tensor, images: Tensor, reflect: bool) -> tuple[Tensor, Tensor | None]:
    """Index ``(N, H', W')`` of the nearest pixel in an image, and whether there is one; None if there always is."""
    pixels = _grid_to_pixels(grid, images)
    if reflect:
        pixels = _fold(pixels, images)
    height, width = images.shape[-2:]
    x, y = pixels.round_().unbind(-1)  # halves to even, as grid_sample rounds
    inside = None if reflect else (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return (y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).long(), inside


def _sides(values: Tensor, images: Tensor) -> Tensor:
    return to_device(torch.tensor((images.shape[-1], images.shape[-2]), dtype=values.dtype), values.device)


def _grid_to_pixels(grid: Tensor, images: Tensor) -> Tensor:
    """Coordinates in which the centres of pixels are whole numbers."""
    return ((grid + 1) * _sides(grid, images) - 1) / 2


def _pixels_to_grid(pixels: Tensor, images: Tensor) -> Tensor:
    return (2 * pixels + 1) / _sides(pixels, images) - 1


def _fold(pixels: Tensor, images: Tensor) -> Tensor:
    """Fold coordinates into the image, as torch's padding mode ``reflect`` does."""
    last = _sides(pixels, images) - 1
    return last - (pixels.remainder(2 * last.clamp(min=0.5)) - last).abs()
