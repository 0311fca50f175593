"""Check that the images and targets of a batch can be blended."""

import torch
from torch import Tensor

from lightning_trainingkit.functional.augmentation_inputs import check_numbers
from lightning_trainingkit.functional.image_batch import ImageBatch, describe

__all__ = ["check_targets", "is_mask"]

_IGNORED = -100  # torch's own `ignore_index`


def is_mask(batch: ImageBatch) -> bool:
    """Whether the target has a value for each pixel of the image: ``(N, H, W)`` or ``(N, C, H, W)``."""
    labels = batch.labels
    return isinstance(labels, Tensor) and labels.ndim >= 3 and labels.shape[-2:] == batch.images.shape[-2:]


def check_targets(batch: ImageBatch, targets: str, draw: str, num_classes: int | None, *, pastes: bool) -> None:
    """Raise an error with its cure if a batch cannot be blended. It reads the values of class indices.

    Args:
        batch: The first batch of a fit.
        targets: ``pair`` or ``soft``.
        draw: ``batch`` or ``image``.
        num_classes: Number of classes, or None.
        pastes: Whether boxes are pasted, and images are never blended as a whole.

    Raises:
        TypeError: If the type of the images or of the target has no blend.
        ValueError: If there is one image alone, an image has NaN, or a class index is out of range.
    """
    images, labels = batch.images, batch.labels
    if not pastes and not images.is_floating_point():
        raise TypeError(f"`image` must be floating point, got {images.dtype}. Convert the images in the data set.")
    if not isinstance(labels, Tensor):
        raise TypeError(
            f"`target` must be a tensor, got {type(labels).__name__}: lists, dicts and strings have no blend. "
            f"Name the target by `target` in a batch with {describe(batch.whole)}, or leave the callback out."
        )
    if labels.ndim == 0 or len(labels) != len(images):
        raise ValueError(
            f"`target` must have one row for each of {len(images)} images, got {tuple(labels.shape)}. "
            "Boxes and other targets of varying number have no blend. Leave the callback out."
        )
    if len(images) == 1:
        raise ValueError(
            "`batch_size` must be at least 2 to blend images, got 1: the image would be its own partner. "
            "Use larger batches. A later batch of one image is left as it is."
        )
    check_numbers(images)
    if pastes and labels.ndim >= 3 and not is_mask(batch):
        raise ValueError(
            f"`target` must have the size of the images for CutMix, got {tuple(labels.shape)} for images "
            f"{tuple(images.shape)}. Resize the masks to the images."
        )
    if draw == "image" and targets == "pair" and not (pastes and is_mask(batch)):
        raise ValueError(
            "`draw` must be 'batch' for targets='pair', got 'image': the loss of a batch cannot be weighted by image. "
            "Use draw='batch' or targets='soft'."
        )
    if targets == "soft" and not (pastes and is_mask(batch)):
        _check_soft(labels, num_classes)
    if num_classes is not None and labels.ndim == 1 and not labels.is_floating_point():
        _check_range(labels, num_classes, targets)


def _check_soft(labels: Tensor, num_classes: int | None) -> None:
    if labels.is_floating_point():
        if num_classes is not None and labels.ndim == 2 and labels.shape[1] != num_classes:
            raise ValueError(
                f"`num_classes` must be {labels.shape[1]} for targets {tuple(labels.shape)}, got {num_classes}. "
                "Give the number of columns, or leave it out."
            )
        return
    if labels.ndim != 1:
        raise TypeError(
            f"`target` must be floating point or class indices (N,) for targets='soft', got {labels.dtype} of shape "
            f"{tuple(labels.shape)}. Use targets='pair', or convert several labels an image to float."
        )
    if num_classes is None:
        raise ValueError(
            "`num_classes` must be given for class indices with targets='soft', got None. Write num_classes=10, say."
        )


def _check_range(labels: Tensor, num_classes: int, targets: str) -> None:
    valid = (labels >= 0) & (labels < num_classes)
    if targets == "pair":
        valid |= labels == _IGNORED
    wrong = torch.nonzero(~valid)
    if len(wrong):
        index = int(wrong[0])
        raise ValueError(
            f"`target` must be a class index from 0 to {num_classes - 1}, got {int(labels[index])} for image {index} "
            "of the first batch. Count the classes from 0, or correct `num_classes`."
        )
