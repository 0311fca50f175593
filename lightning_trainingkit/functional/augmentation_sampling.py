"""Look up the pixels of changed images: by one interpolation, or as copies of whole pixels."""

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from lightning_trainingkit.functional.augmentation_draws import AugmentationDraws
from lightning_trainingkit.functional.augmentation_lens import distort
from lightning_trainingkit.functional.augmentation_maps import lens_to_image, result_to_lens

__all__ = ["copy_pixels", "grid_of", "interpolate", "nearest_pixels", "to_device", "whole_pixels"]


def to_device(parameters: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Move small parameters without waiting for the device."""
    parameters = parameters if dtype is None else parameters.to(dtype)
    if device.type == "cuda":
        parameters = parameters.pin_memory()
    return parameters.to(device, non_blocking=True)


def grid_of(
    draws: AugmentationDraws, output: tuple[int, int], device: torch.device, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Where each pixel of the result looks, as ``grid_sample`` wants it: (x, y) from -1 to 1 between the borders.

    Args:
        draws: Parameters of ``N`` images.
        output: Height and width of the result.
        device: Device of the images.
        dtype: Precision of the grid.

    Returns:
        Grid ``(N, H', W', 2)``.
    """
    height, width = draws.size
    matrix, offset = lens_to_image(draws), result_to_lens(draws, output)
    if draws.lens is None:
        matrix[:, :, 2] += (matrix[:, :, :2] @ offset[:, :, None])[:, :, 0]
    matrix[:, 0] *= 2 / width
    matrix[:, 1] *= 2 / height
    rows = to_device(matrix, device, dtype)[..., None, None]
    x = torch.arange(output[1], device=device, dtype=dtype) - (output[1] - 1) / 2
    y = (torch.arange(output[0], device=device, dtype=dtype) - (output[0] - 1) / 2)[:, None]
    if draws.lens is not None:
        unit = (width**2 + height**2) ** 0.5 / 2
        moved = to_device(offset / unit, device, dtype)[..., None, None]
        lens = to_device(draws.lens * 1.0, device, dtype)[:, None, None]
        x, y = distort(x / unit + moved[:, 0], y / unit + moved[:, 1], lens)
        x, y = x * unit, y * unit
    grid = torch.empty((len(draws), *output, 2), device=device, dtype=dtype)
    for k in (0, 1):  # written in place: half the time of a matrix product
        torch.addcmul(rows[:, k, 2] + rows[:, k, 1] * y, rows[:, k, 0], x, out=grid[..., k])
    if draws.corners is not None:
        depth = torch.addcmul(rows[:, 2, 2] + rows[:, 2, 1] * y, rows[:, 2, 0], x)
        grid /= depth.clamp_(min=1e-6)[..., None]  # beyond the horizon there is nothing
    return grid


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
    if filled:  # grid_sample puts 0 outside
        images = images - fill
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


def whole_pixels(
    draws: AugmentationDraws, output: tuple[int, int], device: torch.device, reflect: bool
) -> tuple[Tensor, Tensor | None]:
    """Index ``(N, H', W')`` of the pixel to copy, and whether it is in the image, for flips, shifts and crops alone."""
    count = len(draws)
    indices, insides = [], []
    for axis, flip in ((0, draws.horizontal_flip), (1, draws.vertical_flip)):
        side, wanted = draws.size[1 - axis], output[1 - axis]
        start = torch.zeros(count, dtype=torch.int64)
        start += 0 if draws.crop is None else draws.crop[:, axis]
        start -= 0 if draws.translation is None else draws.translation[:, axis]
        direction = torch.ones(count, dtype=torch.int64)
        if flip is not None:
            start, direction = torch.where(flip, side - 1 - start, start), torch.where(flip, -1, 1)
        start, direction = to_device(torch.stack((start, direction)), device)[..., None]
        index = start + direction * torch.arange(wanted, device=device)
        insides.append((index >= 0) & (index < side))
        period = max(2 * side - 2, 1)
        indices.append((side - 1 - (index.remainder(period) - side + 1).abs()) if reflect else index.clamp(0, side - 1))
    inside = None if reflect else insides[1][:, :, None] & insides[0][:, None]
    return indices[1][:, :, None] * draws.size[1] + indices[0][:, None], inside


def copy_pixels(images: Tensor, index: Tensor, inside: Tensor | None, fill: float | Tensor) -> Tensor:
    """Copy the pixels of images ``(N, C, H, W)`` of any dtype; where none is inside, write the fill."""
    count, channels = images.shape[:2]
    flat = index.flatten(1)[:, None].expand(count, channels, -1)
    result = images.flatten(2).gather(2, flat).view(count, channels, *index.shape[1:])
    return result if inside is None else torch.where(inside[:, None], result, fill)


def _grid_to_pixels(grid: Tensor, images: Tensor) -> Tensor:
    """Coordinates in which the centres of pixels are whole numbers."""
    sides = torch.tensor((images.shape[-1], images.shape[-2]), device="cpu", dtype=grid.dtype)
    sides = to_device(sides, grid.device)
    return ((grid + 1) * sides - 1) / 2


def _pixels_to_grid(pixels: Tensor, images: Tensor) -> Tensor:
    sides = to_device(torch.tensor((images.shape[-1], images.shape[-2]), dtype=pixels.dtype), pixels.device)
    return (2 * pixels + 1) / sides - 1


def _fold(pixels: Tensor, images: Tensor) -> Tensor:
    """Fold coordinates into the image, as torch's padding mode ``reflect`` does."""
    last = to_device(torch.tensor((images.shape[-1], images.shape[-2]), dtype=pixels.dtype) - 1, pixels.device)
    return last - (pixels.remainder(2 * last.clamp(min=0.5)) - last).abs()
