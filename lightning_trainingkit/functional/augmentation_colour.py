"""Colour of each image: linear steps as one matrix, and the hue."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_trainingkit.functional.augmentation import Augmentation
from lightning_trainingkit.functional.augmentation_draws import AugmentationDraws
from lightning_trainingkit.functional.augmentation_maps import to_device

__all__ = ["Colour", "change_colour", "colour_of"]

_GREY = (0.2989, 0.587, 0.114)  # torchvision's rgb_to_grayscale


@dataclass(frozen=True)
class Colour:
    """Change of colour of each image, on the device.

    With the factors ``b``, ``c`` and ``s``, the grey ``g`` of a pixel and its mean ``m`` over the image,
    ``x' = b (c (s x + (1 - s) g) + (1 - c) m) + offset``. The order of brightness, contrast and saturation doesn't
    matter, apart from the limits that torchvision applies after each.

    Args:
        matrix: Factors of the channels, ``(N, C, C)``, or None.
        offset: Offset of each channel, ``(N, C, 1)``, or None.
        of_mean: Factors of the channels' means in the offset, for the contrast, ``(N, 1, C)``, or None.
        hue: Shift of the hue, ``(N,)``, or None.
    """

    matrix: Tensor | None
    offset: Tensor | None
    of_mean: Tensor | None
    hue: Tensor | None


def colour_of(
    augmentation: Augmentation, draws: AugmentationDraws, channels: int, device: torch.device, dtype: torch.dtype
) -> Colour:
    """Compose the linear steps of colour on the CPU, and move them to the device."""
    hue = None if draws.hue is None else to_device(draws.hue, device, dtype)
    linear = (draws.brightness, draws.contrast, draws.saturation, draws.colour_offset)
    if all(draw is None for draw in linear):
        return Colour(None, None, None, hue)
    count, of_mean, offset = len(draws), None, torch.zeros(len(draws), channels, 1)
    factor = torch.ones(count, 1, 1) if draws.brightness is None else draws.brightness[:, None, None]
    grey = torch.tensor(_GREY if channels == 3 else (1.0,))
    matrix = torch.eye(channels).expand(count, -1, -1)
    if draws.saturation is not None:
        matrix = grey + draws.saturation[:, None, None] * (matrix - grey)
    if draws.contrast is not None:
        contrast = draws.contrast[:, None, None]
        matrix, of_mean = matrix * contrast, to_device(grey * factor * (1 - contrast), device, dtype)
    if draws.colour_offset is not None:
        directions = torch.tensor(augmentation.colour_eigenvectors) * torch.tensor(augmentation.colour_eigenvalues)
        offset = (draws.colour_offset @ directions.T)[:, :, None]
    return Colour(to_device(matrix * factor, device, dtype), to_device(offset, device, dtype), of_mean, hue)


def change_colour(images: Tensor, colour: Colour, part: slice, result: Tensor) -> None:
    """Write images into the result, with the linear steps limited to [0, 1], then the hue shifted."""
    if colour.matrix is None or colour.offset is None:
        result.copy_(images)
    else:
        flat, offset = images.flatten(2), colour.offset[part]
        if colour.of_mean is not None:
            offset = offset + (colour.of_mean[part] * flat.mean(2)[:, None]).sum(2, keepdim=True)
        # no product of matrices: a GPU rounds it to TF32 or bfloat16 where the user has allowed it
        matrix, mixed = colour.matrix[part], result.view_as(flat)
        for channel in range(flat.shape[1]):
            factors, values = matrix[:, :, channel, None], flat[:, channel, None]
            torch.addcmul(offset if channel == 0 else mixed, factors, values, out=mixed)
        mixed.clamp_(0, 1)
    if colour.hue is not None:
        shift_hue_(result, colour.hue[part])


def shift_hue_(images: Tensor, shift: Tensor) -> None:
    """Turn the hue of images ``(N, 3, H, W)`` from 0 to 1 by ``shift`` ``(N,)`` of the circle, in place.

    The value ``v`` and the saturation of HSV stay. With the hue ``h`` as a share of the circle,
    ``x = v - (v - min) clamp(2 - |6 frac(h + t) - 3|, 0, 1)``, and ``t`` 0, 2/3 and 1/3 for red, green and blue.
    """
    red, green, blue = images.unbind(1)
    high, low = torch.maximum(torch.maximum(red, green), blue), torch.minimum(torch.minimum(red, green), blue)
    span = high - low
    scale = 1 / (6 * span).clamp_(min=torch.finfo(span.dtype).tiny)  # a grey pixel has no hue: its differences are 0
    hue = torch.where(
        high == red,
        (green - blue) * scale,
        torch.where(high == green, (blue - red) * scale + 1 / 3, (red - green) * scale + 2 / 3),
    )
    hue += shift[:, None, None] + 2  # positive, so that frac is the remainder
    for channel, turn in enumerate((0, 2 / 3, 1 / 3)):
        share = (hue + turn).frac_().mul_(6).sub_(3).abs_().neg_().add_(2).clamp_(0, 1)
        torch.addcmul(high, span, share, value=-1, out=images[:, channel])
