"""A v2 transform that applies an augmentation, with a draw for each image."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from PIL.Image import Image as PILImage
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.augmentation import Augmentation
from lightning_trainingkit.functional.augmentation_coordinates import augment_boxes, augment_points
from lightning_trainingkit.functional.augmentation_drawing import draw_augmentation
from lightning_trainingkit.functional.augmentation_images import augment, augment_masks
from lightning_trainingkit.functional.augmentation_inputs import check_values

__all__ = ["Augment"]


class Augment(v2.Transform):  # type: ignore[misc]
    """Apply an augmentation to an image with its masks, boxes and keypoints, as a transform of torchvision's v2.

    All geometry is one interpolation. The draws come from torch's generator, which a ``DataLoader`` seeds in each
    worker.

    - **Images** ``(C, H, W)`` may be bytes or floats from 0 to 1, and keep their dtype. A batch ``(N, C, H, W)`` gets
      a draw for each image.
    - **Masks** move with their image, and take the nearest pixel. With a batch they are ``(N, ..., H, W)``.
    - **Boxes and keypoints** move with a single image. ``v2.SanitizeBoundingBoxes`` takes out boxes that end outside.
    - **Other values**, such as labels, pass through, by the rules of v2.

    Args:
        augmentation: Ranges to draw from.
        fill: Value outside of an image and in an erased rectangle, from 0 (black) to 1, also for bytes. One number, or
            one a channel.
        mask_fill: Value outside of a mask, such as 255 for a loss that ignores it.

    Raises:
        TypeError: If ``augmentation`` is no `Augmentation`.
        ValueError: If ``fill`` is not from 0 to 1.

    Example:
        >>> from lightning_trainingkit.functional import Augmentation
        >>> transform = Augment(Augmentation(rotation=10, padding=4, brightness=0.2))
        >>> transform(torch.zeros(3, 32, 32, dtype=torch.uint8)).dtype
        torch.uint8
    """

    def __init__(
        self, augmentation: Augmentation, *, fill: float | Sequence[float] = 0.0, mask_fill: float = 0
    ) -> None:
        super().__init__()
        if not isinstance(augmentation, Augmentation):
            raise TypeError(
                f"`augmentation` must be an Augmentation, got {type(augmentation).__name__}. Write "
                "Augmentation(horizontal_flip=0.5), say."
            )
        self.augmentation = augmentation
        for value in fill if isinstance(fill, list | tuple) else [fill]:
            _check.number("fill", value, "It is a share of white, also for bytes: 0.5 is grey.", least=0, most=1)
        self.fill = fill
        self.mask_fill = mask_fill

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw for each image of the sample.

        Raises:
            TypeError: If the sample holds a PIL image or a video.
            ValueError: If it holds nothing to change, or if its images, masks, boxes and keypoints differ in size.
        """
        for value in flat_inputs:
            if isinstance(value, PILImage | tv_tensors.Video):
                cure = "Put v2.ToImage() before it" if isinstance(value, PILImage) else "Augment its frames as a batch"
                raise TypeError(f"`{type(self).__name__}` must get tensors, got {type(value).__name__}. {cure}.")
        sizes = {tuple(v2.functional.get_size(value)) for value in flat_inputs}
        if len(sizes) != 1:
            found = sorted(sizes) or "none"
            raise ValueError(f"`sample` must have images and masks of one size, got {found}. Resize them before.")
        counts = {len(value) if value.ndim == 4 else None for value in flat_inputs if _is_image(value)} or {None}
        if len(counts) != 1:
            raise ValueError(f"`sample` must have images of one batch, got batches of {counts}. Give them one by one.")
        (size,), (count,) = sizes, counts
        return {"draws": draw_augmentation(self.augmentation, count or 1, size), "batch": count is not None}

    def transform(self, value: Any, params: dict[str, Any]) -> Any:
        """Change one image, mask, set of boxes or set of keypoints as drawn."""
        draws, augmentation = params["draws"], self.augmentation
        values, canvas = value.as_subclass(Tensor), augmentation.output_size(draws.size)
        if _is_image(value):
            images = values if params["batch"] else values[None]
            changed = self._change(images, params)
            return tv_tensors.wrap(changed if params["batch"] else changed[0], like=value)
        if isinstance(value, tv_tensors.Mask):
            count = len(draws) if params["batch"] else 1
            layers = values.reshape(count, math.prod(values.shape[:-2]) // count, *values.shape[-2:])
            moved = augment_masks(layers, augmentation, draws, self.mask_fill)
            return tv_tensors.wrap(moved.reshape(*values.shape[:-2], *canvas), like=value)
        if params["batch"]:
            kind = type(value).__name__
            raise ValueError(f"`sample` must hold one image beside {kind}, got a batch. Transform samples one by one.")
        if isinstance(value, tv_tensors.KeyPoints):
            moved = augment_points(values[None], augmentation, draws)[0]
        elif value.clamping_mode is None:
            raise ValueError("`clamping_mode` must be 'soft' or 'hard', got None. Boxes are cut at the border.")
        else:
            moved = augment_boxes(values[None], augmentation, draws, value.format.value)[0]
        return tv_tensors.wrap(moved, like=value, canvas_size=canvas)

    def _change(self, images: Tensor, params: dict[str, Any]) -> Tensor:
        if images.dtype == torch.uint8:
            changed = augment(images.float().div_(255), self.augmentation, params["draws"], self.fill)
            return changed.mul(255).round_().to(torch.uint8)
        if images.is_floating_point():
            check_values(images, self.augmentation)
        return augment(images, self.augmentation, params["draws"], self.fill)

    def extra_repr(self) -> str:
        """Show the ranges that are on."""
        return repr(self.augmentation)


def _is_image(value: Any) -> bool:
    return not isinstance(value, tv_tensors.Mask | tv_tensors.BoundingBoxes | tv_tensors.KeyPoints)
