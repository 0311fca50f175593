"""Move what a batch says about places in its images together with the images: masks, boxes and keypoints."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torchvision import tv_tensors

from lightning_trainingkit.functional.augmentation import Augmentation
from lightning_trainingkit.functional.augmentation_coordinates import augment_boxes, augment_points
from lightning_trainingkit.functional.augmentation_draws import AugmentationDraws
from lightning_trainingkit.functional.augmentation_images import augment_masks

__all__ = ["Annotations"]

_COORDINATES = frozenset({"bbox", "bboxes", "box", "boxes", "keypoint", "keypoints", "landmarks", "points"})


@dataclass(frozen=True)
class Annotations:
    """The geometry of one batch, for the other entries of the batch.

    - **Masks** are tensors ``(N, H, W)`` or ``(N, 1, H, W)`` in the size of the images; of integers ``(N, K, H, W)``.
    - **Lists** with an entry for each image, such as a dict, may hold masks, and boxes and keypoints of
      ``torchvision.tv_tensors``.
    - **Refused** are other entries that must move: a second image, and boxes or keypoints in plain tensors.

    Args:
        augmentation: The augmentation of the images.
        draws: The parameters of the images.
        mask_fill: Value of masks outside of the images.
    """

    augmentation: Augmentation
    draws: AugmentationDraws
    mask_fill: int

    def move(self, value: Any, name: str, is_target: bool = False) -> Any:
        """Return an entry of the batch as it belongs to the moved images. An entry without places is returned as it is.

        Raises:
            ValueError: If the entry must move, and its form does not tell how.
        """
        if isinstance(value, tv_tensors.BoundingBoxes | tv_tensors.KeyPoints):
            raise _unclear(name, value, "a list with boxes or keypoints for each image")
        if isinstance(value, Tensor):
            return self._moved_tensor(value, name, is_target)
        if isinstance(value, Mapping):
            return _replaced(value, {key: self.move(each, str(key)) for key, each in value.items()})
        if isinstance(value, list | tuple) and len(value) == len(self.draws):
            moved = [self._moved_of_image(each, name, index) for index, each in enumerate(value)]
            return type(value)(moved) if any(new is not old for new, old in zip(moved, value, strict=True)) else value
        return value

    def _moved_tensor(self, value: Tensor, name: str, is_target: bool) -> Tensor:
        if len(value.shape) < 3 or len(value) != len(self.draws):
            if name.lower() in _COORDINATES:
                raise _unclear(name, value, _FORM)
            return value
        if tuple(value.shape[-2:]) == self.draws.size and value.dim() <= 4:
            if value.dim() == 4 and value.shape[1] != 1 and value.is_floating_point():
                raise _unclear(name, value, "a mask (N, H, W) or (N, 1, H, W), or a one-hot mask of integers")
            return augment_masks(value, self.augmentation, self.draws, self.mask_fill)
        if is_target or name.lower() in _COORDINATES:
            raise _unclear(name, value, _FORM)
        return value

    def _moved_of_image(self, value: Any, name: str, index: int) -> Any:
        if isinstance(value, Mapping):
            return _replaced(value, {key: self._moved_of_image(each, str(key), index) for key, each in value.items()})
        if not isinstance(value, Tensor):
            return value
        draws, output = self.draws.rows(index, index + 1), self.augmentation.output_size(self.draws.size)
        plain = value.as_subclass(Tensor)[None]
        if isinstance(value, tv_tensors.BoundingBoxes):
            moved = augment_boxes(plain, self.augmentation, draws, value.format.name)
            return tv_tensors.wrap(moved[0], like=value, canvas_size=output)
        if isinstance(value, tv_tensors.KeyPoints):
            moved = augment_points(plain, self.augmentation, draws)
            return tv_tensors.wrap(moved[0], like=value, canvas_size=output)
        if tuple(value.shape[-2:]) == self.draws.size and value.dim() in (2, 3):
            if isinstance(value, tv_tensors.Image) or (value.dim() == 3 and value.is_floating_point()):
                raise _unclear(name, value, "a mask (H, W), or masks (K, H, W) of integers")
            moved = augment_masks(plain, self.augmentation, draws, self.mask_fill)
            return tv_tensors.wrap(moved[0], like=value) if isinstance(value, tv_tensors.TVTensor) else moved[0]
        if name.lower() in _COORDINATES:
            raise _unclear(name, value, _FORM)
        return value


_FORM = "a mask of the images' size, or a list with tv_tensors.BoundingBoxes or KeyPoints for each image"


def _replaced(value: Mapping[Any, Any], moved: dict[Any, Any]) -> Any:
    if all(moved[key] is each for key, each in value.items()):
        return value
    changed: Any = copy.copy(value)
    for key, each in moved.items():
        changed[key] = each
    return changed


def _unclear(name: str, value: Tensor, rule: str) -> ValueError:
    return ValueError(
        f"`batch` must hold annotations that can move with the images, got {name!r} with "
        f"{type(value).__name__} {tuple(value.shape)}, which is not {rule}. Let the DataLoader return that, or "
        "give the policy to the transforms of the data set."
    )
