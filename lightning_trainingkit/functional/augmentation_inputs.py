"""Checks of the images, masks and points that an augmentation changes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.augmentation import Augmentation
from lightning_trainingkit.functional.augmentation_draws import AugmentationDraws

__all__ = [
    "check_batch",
    "check_canvas",
    "check_fill",
    "check_images",
    "check_mask_fill",
    "check_numbers",
    "check_values",
]

_ROUNDING = 1e-4  # a resize of floats gives 1.0000001


def check_batch(values: Any, name: str, draws: AugmentationDraws, shape: str) -> None:
    """Refuse a batch that has another number of images than the draws."""
    if not isinstance(values, Tensor):
        raise TypeError(
            f"`{name}` must be a tensor of shape {shape}, got {type(values).__name__}. Stack them into one."
        )
    if draws.steps and len(values) != len(draws):
        raise ValueError(
            f"`{name}` must hold as many images as the draws, {len(draws)}, got {len(values)}. Draw for each batch."
        )


def check_canvas(values: Tensor, name: str, draws: AugmentationDraws, shape: str) -> None:
    """Refuse images or masks whose shape differs from the one that was drawn for."""
    check_batch(values, name, draws, shape)
    if values.ndim != 4:
        raise ValueError(
            f"`{name}` must have the shape {shape}, got {tuple(values.shape)}. A single image needs unsqueeze(0)."
        )
    if tuple(values.shape[-2:]) != draws.size:
        height, width = draws.size
        raise ValueError(
            f"`{name}` must have {height} x {width} pixels, as the draws have it, got "
            f"{values.shape[-2]} x {values.shape[-1]}. Give `draw_augmentation` the size of the images."
        )


def check_images(images: Any, draws: AugmentationDraws) -> None:
    """Refuse images that the draws or the steps of colour don't suit.

    Raises:
        TypeError: If they are no floating-point tensor.
        ValueError: If their shape, number or channels don't suit.
    """
    check_canvas(images, "images", draws, "(N, C, H, W)")
    if not images.is_floating_point():
        raise TypeError(
            f"`images` must be floating point, got {images.dtype}. Divide bytes by 255, or use the transform `Augment`."
        )
    channels = images.shape[1]
    of_colours = {"saturation": draws.saturation, "hue": draws.hue, "colour_offset": draws.colour_offset}
    steps = of_colours if channels == 1 else {**of_colours, "brightness": draws.brightness, "contrast": draws.contrast}
    steps = {name: draw for name, draw in steps.items() if draw is not None}
    if steps and channels != 3:
        suits = "brightness and contrast suit grey images" if channels == 1 else "geometry suits any number of channels"
        raise ValueError(
            f"`images` must have 3 channels for {', '.join(steps)}, got {channels}. Leave these steps out: {suits}."
        )


def check_values(images: Tensor, augmentation: Augmentation) -> None:
    """Refuse images with values outside of [0, 1] for an augmentation that changes colours.

    The check reads all values, and waits for a GPU. A training makes it with its first batch alone.

    Args:
        images: Images of any shape, floating point.
        augmentation: The augmentation that will change them. One without steps of colour takes any values.

    Raises:
        ValueError: If a value is below 0 or above 1, by more than interpolation rounds, or NaN.

    Example:
        >>> import torch
        >>> check_values(torch.rand(2, 3, 8, 8), Augmentation(brightness=0.4))
    """
    if not augmentation.changes_colour or not images.numel():
        return
    check_numbers(images)
    low, high = (bound.item() for bound in torch.aminmax(images))
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
        raise ValueError(
            f"`images` must have values from 0 to 1 for a change of colour, got values from {low:g} to {high:g}. "
            "Normalise after the augmentation, not before, and divide bytes by 255."
        )


def check_numbers(images: Tensor) -> None:
    """Refuse images with NaN or infinity, and name them by their index. It waits for a GPU.

    Args:
        images: Images ``(N, ...)``, or one image ``(C, H, W)``.

    Raises:
        ValueError: If a value is NaN or infinite.
    """
    finite = images.isfinite()
    if not finite.all():
        bad = [] if images.ndim in (1, 3) else (~finite).flatten(1).any(1).nonzero().flatten().tolist()
        named = ", ".join(map(str, bad[:10])) + (", ..." if len(bad) > 10 else "")
        place = f" in image {named} of the batch" if bad else ""
        raise ValueError(f"`images` must be finite, got NaN or infinity{place}. Repair or leave out these images.")


def check_fill(fill: Any, images: Tensor) -> float | Tensor:
    """Return the fill as a number, or as ``(C, 1, 1)`` where each channel has its own."""
    hint = "Write 0.5, or a number for each channel."
    if not isinstance(fill, Sequence) or isinstance(fill, str):
        return _check.number("fill", fill, hint)
    values = [_check.number("fill", each, hint) for each in fill]
    if len(values) != images.shape[1]:
        raise ValueError(f"`fill` must have a number for each of {images.shape[1]} channels, got {len(values)}. {hint}")
    return torch.tensor(values, dtype=images.dtype)[:, None, None]


def check_mask_fill(fill: Any, masks: Tensor) -> None:
    """Refuse a fill that the dtype of the masks can't hold."""
    value = _check.number("fill", fill, "Write 255 for a loss that ignores this index, say.")
    if masks.is_floating_point():
        return
    low, high = (0, 1) if masks.dtype == torch.bool else (torch.iinfo(masks.dtype).min, torch.iinfo(masks.dtype).max)
    if value != int(value) or not low <= value <= high:
        raise ValueError(
            f"`fill` must be an integer from {low} to {high} for masks of {masks.dtype}, got {fill}. Change the "
            "fill, or the dtype of the masks."
        )
