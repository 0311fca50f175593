"""Change images and masks as drawn, each image in its own way."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_trainingkit.functional.augmentation import Augmentation
from lightning_trainingkit.functional.augmentation_colour import change_colour
from lightning_trainingkit.functional.augmentation_draws import AugmentationDraws
from lightning_trainingkit.functional.augmentation_inputs import check_canvas, check_fill, check_images
from lightning_trainingkit.functional.augmentation_sampling import (
    copy_pixels,
    grid_of,
    interpolate,
    nearest_pixels,
    to_device,
    whole_pixels,
)

__all__ = ["augment", "augment_masks"]

_CHUNK = 2**19  # values in one pass on a CPU: larger tensors leave the cache


def augment(
    images: Tensor, augmentation: Augmentation, draws: AugmentationDraws, fill: float | Sequence[float] = 0.0
) -> Tensor:
    """Change each image of a batch in its own way: geometry in one interpolation, then colour, then erasing.

    Args:
        images: Images ``(N, C, H, W)``, floating point. A change of colour needs values from 0 to 1, see
            `check_values`, and 3 channels; brightness and contrast alone also take 1.
        augmentation: The augmentation that was drawn from.
        draws: Parameters of the images, from `draw_augmentation`.
        fill: Value of pixels outside of an image and in an erased rectangle, one or one a channel.

    Returns:
        Images ``(N, C, H', W')`` in the dtype of the images. They may be the given ones if all steps are off.

    Raises:
        TypeError: If ``images`` is not a floating-point tensor.
        ValueError: If the shape of the images, their number or their channels don't suit.

    Example:
        >>> import torch
        >>> from lightning_trainingkit.functional import draw_augmentation
        >>> augmentation = Augmentation(horizontal_flip=0.5, rotation=10, brightness=0.2)
        >>> images = torch.rand(8, 3, 32, 32)
        >>> augment(images, augmentation, draw_augmentation(augmentation, 8, (32, 32))).shape
        torch.Size([8, 3, 32, 32])
    """
    check_images(images, draws)
    value = check_fill(fill, images)
    if not draws.steps:
        return images
    if images.dtype in (torch.float16, torch.bfloat16):
        return augment(images.float(), augmentation, draws, fill).to(images.dtype)
    step = len(images) if images.device.type != "cpu" else max(1, _CHUNK // images[0].numel())
    if step >= len(images):
        return _changed(images, augmentation, draws, value)
    output = augmentation.output_size(draws.size)
    result = torch.empty((len(images), images.shape[1], *output), dtype=images.dtype)
    for start in range(0, len(images), step):
        rows = slice(start, start + step)
        result[rows] = _changed(images[rows], augmentation, draws.rows(start, start + step), value)
    return result


def _changed(images: Tensor, augmentation: Augmentation, draws: AugmentationDraws, fill: float | Tensor) -> Tensor:
    output, reflect = augmentation.output_size(draws.size), augmentation.padding_mode == "reflect"
    if isinstance(fill, Tensor):
        fill = to_device(fill, images.device)
    if draws.interpolates:
        images = interpolate(images, grid_of(draws, output, images.device, images.dtype), reflect, fill)
    elif draws.moves:
        images = copy_pixels(images, *whole_pixels(draws, output, images.device, reflect), fill)
    images = change_colour(images, augmentation, draws)
    return images if draws.erasing is None else _erase(images, draws.erasing, fill)


def _erase(images: Tensor, rectangles: Tensor, fill: float | Tensor) -> Tensor:
    left, top, width, height = to_device(rectangles, images.device)[:, :, None].unbind(1)
    x, y = (torch.arange(side, device=images.device) for side in (images.shape[-1], images.shape[-2]))
    wide, tall = (x >= left) & (x < left + width), (y >= top) & (y < top + height)
    return torch.where((tall[:, :, None] & wide[:, None])[:, None], fill, images)


def augment_masks(masks: Tensor, augmentation: Augmentation, draws: AugmentationDraws, fill: float = 0) -> Tensor:
    """Move masks with their images; each pixel takes the value of the nearest one. Erasing leaves masks alone.

    Args:
        masks: Masks ``(N, H, W)`` or ``(N, K, H, W)``, of any dtype.
        augmentation: The augmentation of the images.
        draws: The parameters of the images.
        fill: Value outside of the masks, such as the index that a loss ignores.

    Returns:
        Masks ``(N, H', W')`` or ``(N, K, H', W')`` of the same dtype.

    Raises:
        ValueError: If the shape or the number of the masks doesn't suit.

    Example:
        >>> import torch
        >>> from lightning_trainingkit.functional import draw_augmentation
        >>> augmentation = Augmentation(padding=1)
        >>> draws = draw_augmentation(augmentation, 2, (4, 4))
        >>> augment_masks(torch.ones(2, 4, 4).long(), augmentation, draws, fill=255).shape
        torch.Size([2, 4, 4])
    """
    layers = masks[:, None] if masks.ndim == 3 else masks
    check_canvas(layers, "masks", draws, "(N, H, W) or (N, K, H, W)")
    if not draws.moves:
        return masks
    output, reflect = augmentation.output_size(draws.size), augmentation.padding_mode == "reflect"
    if draws.interpolates:
        index, inside = nearest_pixels(grid_of(draws, output, masks.device), layers, reflect)
    else:
        index, inside = whole_pixels(draws, output, masks.device, reflect)
    result = copy_pixels(layers, index, inside, fill)
    return result[:, 0] if masks.ndim == 3 else result
