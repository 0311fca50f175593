"""Move boxes and points with their images."""

from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as shapes
from torchvision.tv_tensors import BoundingBoxFormat

from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.augmentation import Augmentation
from lightning_trainingkit.functional.augmentation_draws import AugmentationDraws
from lightning_trainingkit.functional.augmentation_inputs import check_batch
from lightning_trainingkit.functional.augmentation_lens import undistort
from lightning_trainingkit.functional.augmentation_maps import lens_to_image, result_to_lens, to_device

__all__ = ["augment_boxes", "augment_points"]

BoxFormat = Literal["XYXY", "XYWH", "CXCYWH"]


def augment_points(points: Tensor, augmentation: Augmentation, draws: AugmentationDraws) -> Tensor:
    """Move points with their images; a point may end outside.

    Whole numbers are centres of pixels, as in torchvision's flips of ``KeyPoints``. A point on a pixel stays on it.

    Args:
        points: Coordinates (x, y) in pixels, ``(N, ..., 2)``.
        augmentation: The augmentation of the images.
        draws: The parameters of the images.

    Returns:
        Coordinates in the shape and the dtype of ``points``. Integers are rounded.

    Raises:
        TypeError: If ``points`` is not a tensor.
        ValueError: If the shape or the number of images doesn't suit.

    Example:
        >>> draws = AugmentationDraws((4, 8), horizontal_flip=torch.tensor([True]))
        >>> augment_points(torch.tensor([[[0, 1], [2, 3]]]), Augmentation(horizontal_flip=1.0), draws)
        tensor([[[7, 1],
                 [5, 3]]])
    """
    check_batch(points, "points", draws, "(N, ..., 2)")
    if points.ndim < 2 or points.shape[-1] != 2:
        raise ValueError(f"`points` must have the shape (N, ..., 2), got {tuple(points.shape)}. Write x, then y.")
    if not draws.moves or not points.numel():
        return points
    moved = _forward(points.double() + 0.5, draws, augmentation.output_size(draws.size)) - 0.5
    return (moved if points.is_floating_point() else moved.round()).to(points.dtype)


def augment_boxes(
    boxes: Tensor,
    augmentation: Augmentation,
    draws: AugmentationDraws,
    format: BoxFormat = "XYXY",  # noqa: A002
) -> Tensor:
    """Move boxes with their images. The new box holds the moved corners, and is cut at the border of the result.

    With a lens, the middles of the edges count as well as the corners, since edges bend. A box that ends outside has
    no area. It stays in its row, as in torchvision; ``v2.SanitizeBoundingBoxes`` takes it out.

    Args:
        boxes: Boxes in pixels, ``(N, B, 4)``; borders of pixels are whole numbers.
        augmentation: The augmentation of the images.
        draws: The parameters of the images.
        format: Meaning of the four numbers, a name of torchvision's ``BoundingBoxFormat``.

    Returns:
        Boxes in the shape, the format and the dtype of ``boxes``. Integers are rounded outwards.

    Raises:
        TypeError: If ``boxes`` is not a tensor.
        ValueError: If the shape, the number of images or the format doesn't suit.

    Example:
        >>> draws = AugmentationDraws((4, 8), horizontal_flip=torch.tensor([True]))
        >>> augment_boxes(torch.tensor([[[0, 1, 2, 3]]]), Augmentation(horizontal_flip=1.0), draws)
        tensor([[[6, 1, 8, 3]]])
    """
    check_batch(boxes, "boxes", draws, "(N, B, 4)")
    _check.one_of("format", format, ("XYXY", "XYWH", "CXCYWH"), "Rotated boxes are not supported.")
    if boxes.ndim != 3 or boxes.shape[-1] != 4:
        raise ValueError(f"`boxes` must have the shape (N, B, 4), got {tuple(boxes.shape)}. Pad rows with empty boxes.")
    if not draws.moves or not boxes.numel():
        return boxes
    given, corners = BoundingBoxFormat[format], BoundingBoxFormat.XYXY
    box = shapes.convert_bounding_box_format(boxes.double(), old_format=given, new_format=corners)
    left, top, right, bottom = box.unbind(-1)
    x, y = [left, right, right, left], [top, top, bottom, bottom]
    if draws.lens is not None:
        x += [(left + right) / 2, right, (left + right) / 2, left]
        y += [top, (top + bottom) / 2, bottom, (top + bottom) / 2]
    output = augmentation.output_size(draws.size)
    low, high = torch.aminmax(
        _forward(torch.stack((torch.stack(x, -1), torch.stack(y, -1)), -1), draws, output), dim=-2
    )
    border = torch.tensor((output[1], output[0]), dtype=low.dtype)
    low, high = (torch.minimum(each.clamp(min=0), to_device(border, each.device)) for each in (low, high))
    if not boxes.is_floating_point():
        low, high = (low + 1e-6).floor(), (high - 1e-6).ceil()
    moved: Tensor = shapes.convert_bounding_box_format(torch.cat((low, high), -1), old_format=corners, new_format=given)
    return moved.to(boxes.dtype)


def _forward(points: Tensor, draws: AugmentationDraws, output: tuple[int, int]) -> Tensor:
    """Move points ``(N, ..., 2)`` from the images to the results; borders of pixels are whole numbers."""
    height, width = draws.size
    flat = points.flatten(1, -2) if points.ndim > 2 else points[:, None]
    inverse = torch.linalg.inv(lens_to_image(draws))
    matrix, offset = (to_device(each, points.device) for each in (inverse, result_to_lens(draws, output)))
    sides = torch.tensor((width, height), dtype=points.dtype)
    moved = (flat - to_device(sides / 2, points.device)) @ matrix[:, :2, :2].mT + matrix[:, None, :2, 2]
    if draws.corners is not None:
        depth = (flat - to_device(sides / 2, points.device)) @ matrix[:, 2, :2, None] + matrix[:, None, 2:, 2]
        moved = moved / depth.clamp(min=1e-6)
    if draws.lens is not None:
        unit = (height**2 + width**2) ** 0.5 / 2
        lens = to_device(draws.lens, points.device)[:, None]
        x, y = (moved / unit).unbind(-1)
        moved = torch.stack(undistort(x, y, lens), -1) * unit
    moved = moved - offset[:, None] + to_device(torch.tensor((output[1], output[0])) / 2, points.device)
    return moved.view_as(points)
