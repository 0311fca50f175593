"""Parameters of an augmentation for each image."""

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

__all__ = ["AugmentationDraws"]


@dataclass(frozen=True)
class AugmentationDraws:
    """Parameters of an augmentation, one row an image, on the CPU. None stands for a step that is off.

    Args:
        size: Height and width of the images before the augmentation.
        horizontal_flip: Whether an image is flipped left-right, ``(N,)`` booleans.
        vertical_flip: Whether an image is flipped upside down, ``(N,)`` booleans.
        angle: Rotation in degrees, clockwise, ``(N,)``.
        translation: Shift to the right and down in whole pixels, ``(N, 2)``.
        scale: Enlargement along x and y before the rotation, ``(N, 2)``.
        shear: Degrees along x and y, ``(N, 2)``.
        corners: Pixels (x, y) to which the corners go: top left, top right, bottom right, bottom left, ``(N, 4, 2)``.
        lens: Coefficients ``k1, k2, k3, p1, p2``, ``(N, 5)``.
        crop: Left and top of the crop in pixels of the image without its padding, ``(N, 2)``.
        erasing: Left, top, width and height of the erased rectangle in the result, ``(N, 4)``.
        brightness: Factor, ``(N,)``.
        contrast: Factor, ``(N,)``.
        saturation: Factor, ``(N,)``.
        hue: Shift of the hue, ``(N,)``.
        colour_offset: Draws along the three directions, ``(N, 3)``.

    Example:
        >>> import torch
        >>> draws = AugmentationDraws((32, 32), angle=torch.tensor([0.0, 90.0]))
        >>> len(draws), draws.interpolates
        (2, True)
    """

    size: tuple[int, int]
    horizontal_flip: Tensor | None = None
    vertical_flip: Tensor | None = None
    angle: Tensor | None = None
    translation: Tensor | None = None
    scale: Tensor | None = None
    shear: Tensor | None = None
    corners: Tensor | None = None
    lens: Tensor | None = None
    crop: Tensor | None = None
    erasing: Tensor | None = None
    brightness: Tensor | None = None
    contrast: Tensor | None = None
    saturation: Tensor | None = None
    hue: Tensor | None = None
    colour_offset: Tensor | None = None

    @cached_property
    def steps(self) -> dict[str, Tensor]:
        """The draws of the steps that are on."""
        return {name: draw for name, draw in vars(self).items() if isinstance(draw, Tensor)}

    @property
    def interpolates(self) -> bool:
        """Whether the geometry needs values between pixels."""
        return any(draw is not None for draw in (self.angle, self.scale, self.shear, self.corners, self.lens))

    @property
    def moves(self) -> bool:
        """Whether pixels change their places."""
        copied = (self.horizontal_flip, self.vertical_flip, self.translation, self.crop)
        return self.interpolates or any(draw is not None for draw in copied)

    def __len__(self) -> int:
        """Number of images; 1 if all steps are off, which suits any number of images."""
        return max((len(draw) for draw in self.steps.values()), default=1)

    def rows(self, start: int, stop: int) -> "AugmentationDraws":
        """Draws of some of the images."""
        return AugmentationDraws(self.size, **{name: draw[start:stop] for name, draw in self.steps.items()})
