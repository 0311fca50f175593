"""Draw the parameters of an augmentation for each image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Generator, Tensor

from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.augmentation import Augmentation
from lightning_trainingkit.functional.augmentation_draws import AugmentationDraws
from lightning_trainingkit.functional.augmentation_ranges import pair

__all__ = ["draw_augmentation"]


def draw_augmentation(
    augmentation: Augmentation, count: int, size: tuple[int, int], generator: Generator | None = None
) -> AugmentationDraws:
    """Draw the parameters of an augmentation for each image of a batch.

    Args:
        augmentation: Ranges to draw from.
        count: Number of images ``N``.
        size: Height and width of the images.
        generator: Generator of the CPU. None takes torch's own.

    Returns:
        One row an image, on the CPU.

    Raises:
        ValueError: If the crop is larger than an image with its padding, or a size is not positive.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> draws = draw_augmentation(Augmentation(rotation=15, padding=4), 2, (32, 32), generator)
        >>> draws.crop.shape, (draws.angle.abs() <= 15).all()
        (torch.Size([2, 2]), tensor(True))
    """
    count = _check.integer("count", count, "It is the number of images.", least=1)
    height, width = (_check.integer("size", each, "Write (height, width) of the images.", least=1) for each in size)
    output = augmentation.output_size((height, width))
    draw = _Drawer(count, generator)
    return AugmentationDraws(
        (height, width),
        horizontal_flip=draw.chance(augmentation.horizontal_flip),
        vertical_flip=draw.chance(augmentation.vertical_flip),
        angle=draw.uniform(augmentation.rotation, 0),
        translation=_translation(augmentation, draw, (height, width)),
        scale=_scale(augmentation, draw),
        shear=_shear(augmentation, draw),
        corners=_corners(augmentation, draw, (height, width)),
        lens=_lens(augmentation, draw),
        crop=_crop(augmentation, draw, (height, width), output),
        erasing=_erasing(augmentation, draw, output),
        brightness=draw.uniform(augmentation.brightness, 1),
        contrast=draw.uniform(augmentation.contrast, 1),
        saturation=draw.uniform(augmentation.saturation, 1),
        hue=draw.uniform(augmentation.hue, 0),
        colour_offset=draw.normal(3) * augmentation.colour_offset if augmentation.colour_offset else None,
    )


@dataclass(frozen=True)
class _Drawer:
    """Draws for a number of images from one generator."""

    count: int
    generator: Generator | None

    def rand(self, *shape: int) -> Tensor:
        return torch.rand(self.count, *shape, generator=self.generator)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(self.count, *shape, generator=self.generator)

    def below(self, limit: int, *shape: int) -> Tensor:
        return torch.randint(limit, (self.count, *shape), generator=self.generator)

    def chance(self, probability: float) -> Tensor | None:
        return self.rand() < probability if probability else None

    def uniform(self, bounds: float | Sequence[float], neutral: float) -> Tensor | None:
        """Uniform draws; None if the range holds the neutral value alone."""
        low, high = pair(bounds)
        return None if low == high == neutral else self.rand().mul_(high - low).add_(low)


def _translation(augmentation: Augmentation, draw: _Drawer, size: tuple[int, int]) -> Tensor | None:
    limits = torch.tensor(pair(augmentation.translation)) * torch.tensor((size[1], size[0]))
    return ((draw.rand(2) * 2 - 1) * limits).round_().long() if limits.any() else None


def _scale(augmentation: Augmentation, draw: _Drawer) -> Tensor | None:
    scale = draw.uniform(augmentation.scale, 1)
    low, high = pair(augmentation.stretch)
    root = draw.uniform((math.log(low) / 2, math.log(high) / 2), 0)  # half of the logarithm of width to height
    if root is None:
        return None if scale is None else torch.stack((scale, scale), -1)
    factors = torch.stack((root, -root), -1).exp_()
    return factors if scale is None else factors * scale[:, None]


def _shear(augmentation: Augmentation, draw: _Drawer) -> Tensor | None:
    bounds = cast(Sequence[float], augmentation.shear)
    along_x, along_y = draw.uniform(bounds[:2], 0), draw.uniform(bounds[2:], 0)
    zeros = torch.zeros(draw.count)
    if along_x is None and along_y is None:
        return None
    return torch.stack((zeros if along_x is None else along_x, zeros if along_y is None else along_y), -1)


def _corners(augmentation: Augmentation, draw: _Drawer, size: tuple[int, int]) -> Tensor | None:
    """Draw four corners, as torchvision's RandomPerspective does.

    Each corner moves by less than a third of the side. So the four stay a convex figure around the centre.
    """
    height, width = size
    if not augmentation.perspective or not augmentation.perspective_probability:
        return None
    if min(size) < 2:
        raise ValueError(
            f"`size` must be at least 2 x 2 pixels for a perspective, got {height} x {width}. Set `perspective` to 0."
        )
    limits = [min(int(augmentation.perspective * (side // 2)) + 1, (side + 1) // 3) for side in (width, height)]
    inward = torch.stack([draw.below(limit, 4) for limit in limits], -1)
    inward *= (draw.rand() < augmentation.perspective_probability).long()[:, None, None]
    corners = torch.tensor(((0, 0), (width - 1, 0), (width - 1, height - 1), (0, height - 1)))
    return corners + inward * torch.tensor(((1, 1), (-1, 1), (-1, -1), (1, -1)))


def _lens(augmentation: Augmentation, draw: _Drawer) -> Tensor | None:
    draws = [draw.uniform(bounds, 0) for bounds in augmentation.lens.values()]
    if all(each is None for each in draws):
        return None
    return torch.stack([torch.zeros(draw.count) if each is None else each for each in draws], -1)


def _crop(augmentation: Augmentation, draw: _Drawer, size: tuple[int, int], output: tuple[int, int]) -> Tensor | None:
    padding = augmentation.padding
    if output == size and not padding:
        return None
    room = [side + 2 * padding - wanted + 1 for side, wanted in zip(size, output, strict=True)]
    return torch.stack((draw.below(room[1]), draw.below(room[0])), -1) - padding


def _erasing(augmentation: Augmentation, draw: _Drawer, output: tuple[int, int]) -> Tensor | None:
    """Draw rectangles as torchvision's RandomErasing does: the first of ten that is smaller than the image."""
    if not augmentation.erasing:
        return None
    height, width = output
    low, high = pair(augmentation.erasing_area)
    area = draw.rand(10).mul_(high - low).add_(low).mul_(height * width)
    low, high = (math.log(bound) for bound in pair(augmentation.erasing_aspect))
    aspect = draw.rand(10).mul_(high - low).add_(low).exp_()
    heights, widths = (area * aspect).sqrt_().round_(), (area / aspect).sqrt_().round_()
    fits = (heights < height) & (widths < width)
    first = fits.long().argmax(1, keepdim=True)
    erased = fits.any(1) & (draw.rand() < augmentation.erasing)
    tall, wide = (sides.gather(1, first)[:, 0] * erased for sides in (heights, widths))
    left, top = (draw.rand() * (width - wide + 1)).floor(), (draw.rand() * (height - tall + 1)).floor()
    return torch.stack((left, top, wide, tall), -1).long()
