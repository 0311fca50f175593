"""Colour of each image: linear steps as one matrix, and the hue."""

import torch
from torch import Tensor

from lightning_trainingkit.functional.augmentation import Augmentation
from lightning_trainingkit.functional.augmentation_draws import AugmentationDraws
from lightning_trainingkit.functional.augmentation_sampling import to_device

__all__ = ["change_colour"]

_GREY = (0.2989, 0.587, 0.114)  # torchvision's rgb_to_grayscale


def change_colour(images: Tensor, augmentation: Augmentation, draws: AugmentationDraws) -> Tensor:
    """Change brightness, contrast, saturation and colour offset by one matrix, limit to [0, 1], then shift the hue.

    With the factors ``b``, ``c`` and ``s``, the grey ``g`` of a pixel and its mean ``m`` over the image,
    ``x' = b (c (s x + (1 - s) g) + (1 - c) m) + offset``. The order of brightness, contrast and saturation doesn't
    matter, apart from the limits that torchvision applies after each.

    Args:
        images: Images ``(N, C, H, W)`` of 3 channels, or 1 for brightness and contrast. They may be overwritten.
        augmentation: Directions of the colour offset.
        draws: Parameters of the images.
    """
    if draws.contrast is None and draws.brightness is None and draws.saturation is None and draws.colour_offset is None:
        changed = images
    elif images.shape[1] == 1:
        changed = _grey(images, draws).clamp_(0, 1)
    else:
        changed = _linear(images, augmentation, draws).clamp_(0, 1)
    return changed if draws.hue is None else shift_hue(changed, to_device(draws.hue, images.device, images.dtype))


def _grey(images: Tensor, draws: AugmentationDraws) -> Tensor:
    factor = torch.ones(len(draws)) if draws.brightness is None else draws.brightness
    offset = None
    if draws.contrast is not None:
        rest = to_device(factor * (1 - draws.contrast), images.device, images.dtype)[:, None, None, None]
        offset = images.mean((1, 2, 3), keepdim=True) * rest
        factor = factor * draws.contrast
    factor = to_device(factor, images.device, images.dtype)[:, None, None, None]
    return images * factor if offset is None else torch.addcmul(offset, images, factor)


def _linear(images: Tensor, augmentation: Augmentation, draws: AugmentationDraws) -> Tensor:
    device, dtype = images.device, images.dtype
    grey = torch.tensor(_GREY)
    scale = torch.ones(len(draws), 1, 1) if draws.brightness is None else draws.brightness[:, None, None]
    matrix = torch.eye(3).expand(len(draws), 3, 3)
    if draws.saturation is not None:
        matrix = grey + draws.saturation[:, None, None] * (torch.eye(3) - grey)
    if draws.contrast is not None:
        matrix = matrix * draws.contrast[:, None, None]
    offset = torch.zeros(len(draws), 3, 1)
    if draws.colour_offset is not None:
        vectors = torch.tensor(augmentation.colour_eigenvectors) * torch.tensor(augmentation.colour_eigenvalues)
        offset = (draws.colour_offset @ vectors.T)[:, :, None]
    flat, shift = images.flatten(2), to_device(offset, device, dtype)
    if draws.contrast is not None:
        mean_of_grey = to_device(grey * scale * (1 - draws.contrast[:, None, None]), device, dtype)  # (N, 1, 3)
        shift = shift + mean_of_grey @ flat.mean(2, keepdim=True)
    matrix = to_device((matrix * scale).contiguous(), device, dtype)
    return torch.baddbmm(shift, matrix, flat).view_as(images)


def shift_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue of images ``(N, 3, H, W)`` from 0 to 1 by ``shift`` ``(N,)`` of the circle.

    The value and the saturation of HSV stay. With the sixth ``h`` of the circle that a colour has,
    ``x_n = v - (v - min) clamp(min(k, 4 - k), 0, 1)``, ``k = (n + h) mod 6``, for ``n`` 5, 3 and 1.
    """
    low, high = torch.aminmax(images, dim=1)
    span = high - low
    red, green, blue = images.unbind(1)
    divisor = torch.where(span == 0, 1, span)
    hue = torch.where(
        high == red,
        (green - blue) / divisor,
        torch.where(high == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    hue += 6 * shift[:, None, None]
    result = torch.empty_like(images)
    for channel, start in enumerate((5, 3, 1)):
        turn = (hue + start).remainder_(6)
        share = torch.minimum(turn, 4 - turn).clamp_(0, 1)
        torch.addcmul(high, span, share, value=-1, out=result[:, channel])
    return result
