"""Mean, variance and covariance of images, streamed in one pass with constant memory."""

from math import prod
from typing import Any

import torch
from torch import Tensor

from lightning_trainingkit.functional import _check

__all__ = ["LARGEST_COVARIANCE", "Moments"]

LARGEST_COVARIANCE = 3072
"""Values of an image for which a covariance is computed, at most: 3 x 32 x 32. The matrix then has 75 MB."""

_KINDS = ("channel", "pixel", "covariance")


class Moments:
    """Count, mean and sum of squared deviations of images, from batches of any size.

    - **Sums of a batch** are of the deviations from the mean so far, so that a large mean costs no digits. They are
      in float32. A covariance, and images in float64, are summed in float64.
    - **Batches and ranks** are merged in float64 (Chan et al.).
    - **Bytes** count as ``[0, 1]``.

    Args:
        over: ``channel`` (statistics of each channel over images and places), ``pixel`` (of each value of an image
            over images) or ``covariance`` (of each pair of values, for images of at most 3,072 values).

    Attributes:
        images: Number of images.
        count: Number of values behind each mean.
        mean: Means, float64: ``(C,)`` per channel, ``(C, H, W)`` per pixel, ``(D,)`` beside a covariance.
        scatter: Sums of squared deviations in the shape of ``mean``, or of products of deviations ``(D, D)``.

    Raises:
        ValueError: If images have another shape than those before, are too large, or have NaN or infinite values.

    Example:
        >>> moments = Moments("channel")
        >>> moments.add(torch.tensor([1.0, 3.0]).view(1, 1, 1, 2))
        >>> moments.add(torch.tensor([5.0, 7.0]).view(1, 1, 1, 2))
        >>> moments.mean.tolist(), moments.variance.tolist()
        ([4.0], [5.0])

    References:
        Chan et al., "Algorithms for Computing the Sample Variance", The American Statistician 1983.
    """

    def __init__(self, over: str) -> None:
        _check.one_of("over", over, _KINDS, "Try 'channel'.")
        self.over = over
        self.images = self.count = 0
        self.shape: tuple[int, ...] = ()
        self.mean = torch.zeros(0, dtype=torch.float64)
        self.scatter = torch.zeros(0, dtype=torch.float64)

    @property
    def variance(self) -> Tensor:
        """Variances in the shape of ``mean``, with the divisor ``n``."""
        squares = self.scatter.diagonal() if self.over == "covariance" else self.scatter
        return squares / self.count

    @property
    def covariance(self) -> Tensor:
        """Covariance ``(D, D)``, with the divisor ``n - 1``."""
        if self.over != "covariance" or self.count < 2:
            raise ValueError(
                f"`covariance` must come from two images and Moments('covariance'), got {self.images} images and "
                f"Moments({self.over!r}). Add more images."
            )
        return self.scatter / (self.count - 1)

    @torch.no_grad()
    def add(self, images: Tensor) -> None:
        """Add a batch of images ``(N, C, H, W)``, bytes or floats, on any device."""
        x = self._checked(images)
        if not len(x):
            return
        flat = x.flatten(1) if self.over == "covariance" else x
        dims = (0, 2, 3) if self.over == "channel" else 0
        count = len(x) * x.shape[2] * x.shape[3] if self.over == "channel" else len(x)
        shift = self.mean.to(x.dtype) if self.count else flat.mean(dims)
        deviations = flat - (shift[:, None, None] if self.over == "channel" else shift)
        apart = deviations.sum(dims).double() / count
        self._refuse_infinite(x, apart)
        if self.over == "covariance":
            if not self.count:
                self.scatter = x.new_zeros(flat.shape[1], flat.shape[1])
            self.scatter.addmm_(deviations.T, deviations)
            _subtract_squares(self.scatter, apart, count)
            scatter = None
        else:
            scatter = deviations.square_().sum(dims).double()
            self._refuse_infinite(x, scatter)
            _subtract_squares(scatter, apart, count)
        self._merge(len(x), count, shift.double() + apart, scatter)

    def merge(self, other: "Moments") -> None:
        """Add what another object has measured, such as that of another rank."""
        if other.over != self.over or (self.count and other.count and other.mean.shape != self.mean.shape):
            raise ValueError(
                f"`other` must hold moments over {self.over} of images of shape {self.shape}, got moments over "
                f"{other.over} of shape {other.shape}. Measure the same images in the same way."
            )
        if other.count:
            self.shape = self.shape or other.shape
            self._merge(other.images, other.count, other.mean, other.scatter.clone())

    def _merge(self, images: int, count: int, mean: Tensor, scatter: Tensor | None) -> None:
        """Merge by Chan's formula. ``scatter`` is None where it is added already."""
        if scatter is not None:
            self.scatter = self.scatter.add_(scatter) if self.count else scatter
        if not self.count:
            self.mean = mean
        else:
            together = self.count + count
            apart = mean - self.mean
            self.mean = self.mean + apart * (count / together)
            _subtract_squares(self.scatter, apart, -self.count * count / together)
        self.images += images
        self.count += count

    def _checked(self, images: Any) -> Tensor:
        """Return the images as floats in the precision of the sums."""
        if not isinstance(images, Tensor) or not (images.is_floating_point() or images.dtype == torch.uint8):
            found = images.dtype if isinstance(images, Tensor) else type(images).__name__
            raise TypeError(f"`images` must be a tensor of bytes or floats, got {found}. Convert the images.")
        if images.ndim != 4:
            raise ValueError(
                f"`images` must have shape (N, C, H, W), got {tuple(images.shape)}. Give a batch of images."
            )
        shape = (images.shape[1],) if self.over == "channel" else tuple(images.shape[1:])
        if self.shape and shape != self.shape:
            what = "as many channels" if self.over == "channel" else "one shape"
            raise ValueError(f"`images` must all have {what}, got {self.shape} and {shape}. Resize or convert them.")
        if self.over == "covariance" and (values := prod(shape)) > LARGEST_COVARIANCE:
            raise ValueError(
                f"`images` must have at most {LARGEST_COVARIANCE:,} values for a covariance, got {values:,} "
                f"({' x '.join(map(str, shape))}). Make the images smaller, or use statistics per channel."
            )
        self.shape = shape
        exact = self.over == "covariance" or images.dtype == torch.float64
        x = images.cpu().to(torch.float64 if exact else torch.float32)
        return x.div_(255) if images.dtype == torch.uint8 else x

    def _refuse_infinite(self, x: Tensor, *sums: Tensor) -> None:
        if all(bool(each.isfinite().all()) for each in sums):
            return
        bad = (~x.flatten(1).isfinite().all(dim=1)).nonzero().flatten().tolist()
        if not bad:
            raise ValueError(
                f"`images` must have squares within float32, got values up to {x.abs().max():.3g}. Scale them."
            )
        named = ", ".join(str(self.images + index) for index in bad[:10])
        raise ValueError(
            f"`images` must be finite, got NaN or infinity in {len(bad)} of a batch: image {named}, counted from 0 in "
            "the order given. Repair these images, or leave them out."
        )


def _subtract_squares(scatter: Tensor, apart: Tensor, times: float) -> None:
    """Subtract ``times * apart^2`` from sums of squares, or ``times`` the outer product, in place."""
    if scatter.ndim == 2 and apart.ndim == 1:
        scatter.addr_(apart, apart, alpha=-times)
    else:
        scatter.addcmul_(apart, apart, value=-times)
