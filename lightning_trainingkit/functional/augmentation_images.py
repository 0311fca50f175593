"""Change images and masks as drawn, each image in its own way."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_trainingkit.functional.augmentation import Augmentation
from lightning_trainingkit.functional.augmentation_colour import change_colour, colour_of
from lightning_trainingkit.functional.augmentation_copies import copy_pixels, whole_pixels
from lightning_trainingkit.functional.augmentation_draws import AugmentationDraws
from lightning_trainingkit.functional.augmentation_grid import geometry_of, interpolate, nearest_pixels
from lightning_trainingkit.functional.augmentation_inputs import check_canvas, check_fill, check_images, check_mask_fill
from lightning_trainingkit.functional.augmentation_maps import to_device

__all__ = ["augment", "augment_masks"]

_CHUNK = 2**18  # values of the images in one pass on a CPU: what stays in its cache


@torch.no_grad()
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
        New images ``(N, C, H', W')`` in the dtype of the images, without a gradient.

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
        return images.clone()
    half = images.dtype in (torch.float16, torch.bfloat16)
    with torch.autocast(images.device.type, enabled=False):  # places of pixels need full precision
        changed = _augment(images.float() if half else images, augmentation, draws, value)
    return changed.to(images.dtype)


def _augment(images: Tensor, augmentation: Augmentation, draws: AugmentationDraws, fill: float | Tensor) -> Tensor:
    (count, channels), device, dtype = images.shape[:2], images.device, images.dtype
    output, reflect = augmentation.output_size(draws.size), augmentation.padding_mode == "reflect"
    geometry = geometry_of(draws, output, device, dtype) if draws.interpolates else None
    pixels = whole_pixels(draws, output, device, reflect) if draws.moves and not draws.interpolates else None
    colour = colour_of(augmentation, draws, channels, device, dtype)
    fill = to_device(fill, device) if isinstance(fill, Tensor) else fill
    rectangles = None if draws.erasing is None else to_device(draws.erasing, device)
    result = torch.empty((count, channels, *output), dtype=dtype, device=device)
    step = count if device.type != "cpu" else max(1, _CHUNK // images[0].numel())
    for start in range(0, count, step):
        part = slice(start, start + step)
        moved = images[part]
        if geometry is not None:
            moved = interpolate(moved, geometry.grid(part), reflect, fill)
        elif pixels is not None:
            moved = copy_pixels(moved, *pixels.index(part), fill)
        change_colour(moved, colour, part, result[part])
        if rectangles is not None:
            _erase(result[part], rectangles[part], fill)
    return result


def _erase(images: Tensor, rectangles: Tensor, fill: float | Tensor) -> None:
    left, top, width, height = rectangles[:, :, None].unbind(1)
    x, y = (torch.arange(side, device=images.device) for side in (images.shape[-1], images.shape[-2]))
    wide, tall = (x >= left) & (x < left + width), (y >= top) & (y < top + height)
    erased = (tall[:, :, None] & wide[:, None])[:, None]
    if isinstance(fill, Tensor):
        torch.where(erased, fill, images, out=images)
    else:
        images.masked_fill_(erased, fill)


def augment_masks(masks: Tensor, augmentation: Augmentation, draws: AugmentationDraws, fill: float = 0) -> Tensor:
    """Move masks with their images; each pixel takes the value of the nearest one. Erasing leaves masks alone.

    Args:
        masks: Masks ``(N, H, W)`` or ``(N, K, H, W)``, of any dtype.
        augmentation: The augmentation of the images.
        draws: The parameters of the images.
        fill: Value outside of the masks, such as the index that a loss ignores.

    Returns:
        Masks ``(N, H', W')`` or ``(N, K, H', W')`` of the same dtype. They may be the given ones if nothing moves.

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
    check_mask_fill(fill, masks)
    if not draws.moves:
        return masks
    output, reflect = augmentation.output_size(draws.size), augmentation.padding_mode == "reflect"
    if draws.interpolates:
        grid = geometry_of(draws, output, masks.device, torch.float32).grid(slice(None))
        index, inside = nearest_pixels(grid, layers, reflect)
    else:
        index, inside = whole_pixels(draws, output, masks.device, reflect).index(slice(None))
    result = copy_pixels(layers, index, inside, fill)
    return result[:, 0] if masks.ndim == 3 else result
