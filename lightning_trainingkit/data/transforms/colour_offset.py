"""AlexNet's colour offset as a v2 transform."""

from collections.abc import Sequence

from lightning_trainingkit.data.transforms.augment import Augment
from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.augmentation import Augmentation

__all__ = ["ColourOffset"]


class ColourOffset(Augment):
    """Add one random colour to all pixels of an image, along the main directions of natural colours.

    ``x' = x + V (a * l)``, limited to [0, 1], with ``a`` drawn from a normal distribution for each image. ``V`` holds
    the eigenvectors and ``l`` the eigenvalues of the colours of ImageNet.

    Args:
        std: Standard deviation of the three draws ``a``. AlexNet has 0.1.
        eigenvalues: Three weights ``l``, for pixels from 0 to 1.
        eigenvectors: ``V``: a row for each of red, green and blue. A column is a direction.

    Raises:
        ValueError: If ``std`` is not positive, or the eigenvalues or eigenvectors are not three.

    Example:
        >>> import torch
        >>> ColourOffset()(torch.full((3, 8, 8), 0.5)).shape
        torch.Size([3, 8, 8])

    References:
        Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", NeurIPS 2012, section 4.1.
    """

    def __init__(
        self,
        std: float = 0.1,
        eigenvalues: Sequence[float] = Augmentation.colour_eigenvalues,
        eigenvectors: Sequence[Sequence[float]] = Augmentation.colour_eigenvectors,
    ) -> None:
        super().__init__(
            Augmentation(
                colour_offset=_check.number("std", std, "To leave colours alone, leave the transform out.", above=0),
                colour_eigenvalues=eigenvalues,
                colour_eigenvectors=eigenvectors,
            )
        )
