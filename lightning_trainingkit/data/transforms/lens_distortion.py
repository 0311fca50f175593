"""Lens distortion as a v2 transform."""

from collections.abc import Sequence
from typing import Literal

from lightning_trainingkit.data.transforms.augment import Augment
from lightning_trainingkit.functional.augmentation import Augmentation

__all__ = ["LensDistortion"]


class LensDistortion(Augment):
    """Bend images as a lens does, after Brown and Conrady; masks, boxes and keypoints move along.

    A pixel of the result at ``(x, y)`` shows the image at

    ``x (1 + k1 r^2 + k2 r^4 + k3 r^6) + 2 p1 x y + p2 (r^2 + 2 x^2)``,
    ``y (1 + k1 r^2 + k2 r^4 + k3 r^6) + p1 (r^2 + 2 y^2) + 2 p2 x y``,

    with the centre at 0 and the corners at ``r = 1``. Positive radial coefficients give barrel distortion.

    Args:
        k1: Radial coefficient of the second power: 0.2 stands for a draw from -0.2 to 0.2, ``(low, high)`` for others.
        k2: Radial coefficient of the fourth power.
        k3: Radial coefficient of the sixth power.
        p1: Tangential coefficient, vertical.
        p2: Tangential coefficient, horizontal.
        padding_mode: What lies outside of the image: ``"constant"`` (the fill) or ``"reflect"``.
        fill: Value outside of the image, from 0 to 1, also for bytes.
        mask_fill: Value outside of a mask.

    Raises:
        ValueError: If a range is reversed, or a draw from the ranges could fold the image.

    Example:
        >>> import torch
        >>> LensDistortion(k1=0.2)(torch.rand(3, 32, 32)).shape
        torch.Size([3, 32, 32])

    References:
        Brown, "Close-Range Camera Calibration", Photogrammetric Engineering 37(8), 1971.
    """

    def __init__(
        self,
        k1: float | Sequence[float] = 0.1,
        k2: float | Sequence[float] = 0.0,
        k3: float | Sequence[float] = 0.0,
        p1: float | Sequence[float] = 0.0,
        p2: float | Sequence[float] = 0.0,
        *,
        padding_mode: Literal["constant", "reflect"] = "constant",
        fill: float | Sequence[float] = 0.0,
        mask_fill: float = 0,
    ) -> None:
        augmentation = Augmentation(
            lens_k1=k1, lens_k2=k2, lens_k3=k3, lens_p1=p1, lens_p2=p2, padding_mode=padding_mode
        )
        super().__init__(augmentation, fill=fill, mask_fill=mask_fill)
