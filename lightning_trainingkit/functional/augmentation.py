"""Ranges from which the random changes of training images are drawn."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.augmentation_lens import check_lens
from lightning_trainingkit.functional.augmentation_ranges import (
    Pair,
    around,
    axes_of,
    between,
    pair,
    probability,
    shares,
    shears,
    size_of,
    three,
    within,
)

__all__ = ["Augmentation"]

Range = float | Sequence[float]


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images, drawn for each image. By default all are off.

    The steps have this order. A number stands for a symmetric range, and ``(low, high)`` for any other.

    1. Geometry: flips, affine map (as torchvision's ``RandomAffine``), perspective, lens distortion, crop. All steps
       are one map, and each pixel is interpolated once. Flips, translations and crops alone copy whole pixels.
    2. Colour: brightness, contrast, saturation, colour offset as one matrix, limited to [0, 1]; then hue.
    3. Erasing.

    The fields hold numbers, strings and tuples, so that a YAML file can give them. `draw_augmentation` draws, and
    `augment` changes the images.

    Args:
        horizontal_flip: Probability of a left-right flip.
        vertical_flip: Probability of an upside-down flip.
        rotation: Degrees, clockwise: 15 stands for -15 to 15.
        translation: Largest shift as a share of width and height, or ``(x, y)``; rounded to whole pixels.
        scale: Range of the enlargement, such as ``(0.8, 1.2)``.
        stretch: Range of width to height, such as ``(0.75, 1.33)``, log-uniform. The area stays.
        shear: Degrees along x, or ``(low, high)`` along x, or four numbers for x and y.
        perspective: How far corners move, from 0 to 0.6 (torchvision's ``distortion_scale``).
        perspective_probability: Probability of the perspective.
        lens_k1: Radial coefficient of Brown and Conrady; 0.1 stands for -0.1 to 0.1. Corners have radius 1. Positive
            values bend straight lines outwards (barrel), negative ones inwards (pincushion).
        lens_k2: Coefficient of the fourth power of the radius.
        lens_k3: Coefficient of the sixth power of the radius.
        lens_p1: Tangential coefficient, vertical.
        lens_p2: Tangential coefficient, horizontal.
        crop: Size of the result in pixels, one number or ``(height, width)``. None keeps the size of the images.
        padding: Pixels around the image into which the crop may reach.
        padding_mode: What lies outside an image: ``"constant"`` (the fill), or ``"reflect"`` (torch's mirror).
        erasing: Probability of erasing a rectangle, as torchvision's ``RandomErasing``.
        erasing_area: Range of the rectangle's share of the image.
        erasing_aspect: Range of the rectangle's height to width, log-uniform.
        brightness: Factor: 0.4 stands for 0.6 to 1.4, as in torchvision's ``ColorJitter``.
        contrast: Factor of the distance to the mean grey of the image, written like ``brightness``.
        saturation: Factor of the distance to the grey of the pixel, written like ``brightness``.
        hue: Shift along the colour circle, at most 0.5, which is half the circle.
        colour_offset: Standard deviation of AlexNet's three draws; the paper has 0.1.
        colour_eigenvalues: Weights of the three draws. By default those of ImageNet, for pixels from 0 to 1.
        colour_eigenvectors: Three rows, one for each of red, green and blue; a column is a direction.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a field is outside its bounds, a range is reversed, or a lens would fold the image.

    Example:
        >>> Augmentation(horizontal_flip=0.5, rotation=15, padding=4)
        Augmentation(horizontal_flip=0.5, rotation=(-15.0, 15.0), padding=4)

    References:
        Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", NeurIPS 2012.
        Zhong et al., "Random Erasing Data Augmentation", AAAI 2020, arXiv:1708.04896.
    """

    horizontal_flip: float = 0.0
    vertical_flip: float = 0.0
    rotation: Range = 0.0
    translation: Range = 0.0
    scale: Sequence[float] = (1.0, 1.0)
    stretch: Sequence[float] = (1.0, 1.0)
    shear: Range = 0.0
    perspective: float = 0.0
    perspective_probability: float = 0.5
    lens_k1: Range = 0.0
    lens_k2: Range = 0.0
    lens_k3: Range = 0.0
    lens_p1: Range = 0.0
    lens_p2: Range = 0.0
    crop: int | Sequence[int] | None = None
    padding: int = 0
    padding_mode: Literal["constant", "reflect"] = "constant"
    erasing: float = 0.0
    erasing_area: Sequence[float] = (0.02, 0.33)
    erasing_aspect: Sequence[float] = (0.3, 3.3)
    brightness: Range = 0.0
    contrast: Range = 0.0
    saturation: Range = 0.0
    hue: Range = 0.0
    colour_offset: float = 0.0
    colour_eigenvalues: Sequence[float] = (0.2175, 0.0188, 0.0045)
    colour_eigenvectors: Sequence[Sequence[float]] = (
        (-0.5675, 0.7192, 0.4009),
        (-0.5808, -0.0045, -0.8140),
        (-0.5836, -0.6948, 0.4203),
    )

    def __post_init__(self) -> None:
        for name in ("horizontal_flip", "vertical_flip", "perspective_probability", "erasing"):
            self._keep(name, probability(name, getattr(self, name)))
        for name in ("brightness", "contrast", "saturation"):
            self._keep(name, around(name, getattr(self, name)))
        for name in ("lens_k1", "lens_k2", "lens_k3", "lens_p1", "lens_p2"):
            self._keep(name, within(name, getattr(self, name), "Write 0.1 for -0.1 to 0.1, or (low, high)."))
        for name in ("scale", "stretch", "erasing_aspect"):
            self._keep(name, between(name, getattr(self, name), "Write (0.8, 1.25), say.", above=0))
        area = between("erasing_area", self.erasing_area, "Write (0.02, 0.33), say.", above=0, below=1)
        self._keep("erasing_area", area)
        self._keep("rotation", within("rotation", self.rotation, "Write 15 for -15 to 15 degrees, or (low, high)."))
        self._keep("translation", shares("translation", self.translation))
        self._keep("shear", shears("shear", self.shear))
        corners = "0 leaves the perspective out, 0.5 moves a corner up to a quarter of the side."
        self._keep("perspective", _check.number("perspective", self.perspective, corners, least=0, most=0.6))
        self._keep("hue", within("hue", self.hue, "Write 0.1 for -0.1 to 0.1, or (low, high).", most=0.5))
        std = "AlexNet has 0.1, and 0 leaves the step out."
        self._keep("colour_offset", _check.number("colour_offset", self.colour_offset, std, least=0))
        self._keep("colour_eigenvalues", three("colour_eigenvalues", self.colour_eigenvalues))
        self._keep("colour_eigenvectors", axes_of("colour_eigenvectors", self.colour_eigenvectors))
        self._keep("padding", _check.integer("padding", self.padding, "Write 4, say.", least=0))
        _check.one_of(
            "padding_mode", self.padding_mode, ("constant", "reflect"), "The fill is an argument of `augment`."
        )
        if self.crop is not None:
            self._keep("crop", size_of("crop", self.crop))
        check_lens(self.lens)

    def _keep(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # a frozen dataclass can't set its own fields otherwise

    def __repr__(self) -> str:
        off, names = Augmentation(), [field.name for field in fields(self)]
        given = [name for name in names if getattr(self, name) != getattr(off, name)]
        return f"Augmentation({', '.join(f'{name}={getattr(self, name)!r}' for name in given)})"

    @property
    def lens(self) -> dict[str, Pair]:
        """Ranges of the coefficients of the lens."""
        return {name: pair(getattr(self, f"lens_{name}")) for name in ("k1", "k2", "k3", "p1", "p2")}

    @property
    def changes_colour(self) -> bool:
        """Whether a step changes the values of pixels, so that images must have values from 0 to 1."""
        factors = (self.brightness, self.contrast, self.saturation)
        return any(factor != (1.0, 1.0) for factor in factors) or self.hue != (0.0, 0.0) or self.colour_offset > 0

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the changed images.

        Args:
            size: Height and width of the images.

        Raises:
            ValueError: If the crop is larger than an image with its padding.
        """
        height, width = size
        wanted = size if self.crop is None else size_of("crop", self.crop)
        room = (height + 2 * self.padding, width + 2 * self.padding)
        if wanted[0] > room[0] or wanted[1] > room[1]:
            raise ValueError(
                f"`crop` must fit into an image with its padding, {room[0]} x {room[1]} pixels, got {wanted[0]} x "
                f"{wanted[1]}. Take a smaller crop, more padding or larger images."
            )
        return wanted
