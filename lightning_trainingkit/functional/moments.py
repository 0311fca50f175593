"""Mean, variance and covariance of images, streamed in one pass with constant memory."""

from math import prod
from typing import Any

import torch
from torch import Tensor

from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.channel_sums import ChannelSums

__all__ = ["LARGEST_COVARIANCE", "Moments"]

LARGEST_COVARIANCE = 3072
"""Values of an image for which a covariance is computed, at most: 3 x 32 x 32. The matrix then has 75 MB."""

_ROWS = 128  # of a covariance that are computed at once
_FAR = 8.0  # square of the mean over the variance, from which sums of squares lose digits
_KINDS = ("channel", "pixel", "covariance")


class Moments:
    """Count, mean and sum of squared deviations of images, from batches of any size.

    - **Sums of a batch** are of the deviations from the mean so far, so that a large mean costs no digits. They are
      in float32. A covariance, and images in float64, are summed in float64.
    - **Bad pixels** per channel are found at the latest when the results are read.
    - **Batches and ranks** are merged in float64 (Chan et al.).
    - **Bytes** count as ``[0, 1]``.

    Args:
        over: ``channel`` (statistics of each channel over images and places), ``pixel`` (of each value of an image
            over images) or ``covariance`` (of each pair of values, for images of at most 3,072 values).

    Raises:
        ValueError: If images have another shape than those before, are too large, or have NaN or infinite values.

    Example:
        >>> moments = Moments("channel")
        >>> moments.add(torch.tensor([1.0, 3.0]).view(1, 1, 1, 2))
        >>> moments.add(torch.tensor([5.0, 7.0]).view(1, 1, 1, 2))
        >>> moments.mean.item(), round(moments.variance.item(), 4)
        (4.0, 5.0)

    References:
        Chan et al., "Algorithms for Computing the Sample Variance", The American Statistician 1983.
    """

    def __init__(self, over: str) -> None:
        _check.one_of("over", over, _KINDS, "Try 'channel'.")
        self.over = over
        self.shape: tuple[int, ...] = ()
        self._images = self._count = 0
        self._mean = torch.zeros(0, dtype=torch.float64)
        self._scatter = torch.zeros(0, dtype=torch.float64)
        self._waiting = ChannelSums()
        self._usual: torch.Size | None = None  # shape of an image in the batch before, if it was summed as it was

    @property
    def images(self) -> int:
        """Number of images."""
        return self._images + self._waiting.images

    @property
    def count(self) -> int:
        """Number of values behind each mean."""
        self._merge_waiting()
        return self._count

    @property
    def mean(self) -> Tensor:
        """Means, float64: ``(C,)`` per channel, ``(C, H, W)`` per pixel, ``(D,)`` beside a covariance."""
        self._merge_waiting()
        return self._mean

    @property
    def scatter(self) -> Tensor:
        """Sums of squared deviations in the shape of ``mean``, float64. Beside a covariance, the lower triangle."""
        self._merge_waiting()
        return self._scatter

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
        lower = self.scatter.tril() / (self.count - 1)
        return lower + lower.tril(-1).T

    def add(self, images: Tensor) -> None:
        """Add a batch of images ``(N, C, H, W)``, bytes or floats, on any device."""
        if self._is_usual(images):
            if self._waiting.add(images):
                self._merge_waiting()
            return
        x = self._checked(images)
        if not len(x):
            return
        if self.over == "channel":
            self._add_channels(x)
            self._usual = x.shape[1:] if x is images else None
            return
        flat = x.flatten(1) if self.over == "covariance" else x
        shift = self._mean.to(x.dtype) if self._count else flat.mean(0)
        deviations = flat - shift
        apart = deviations.sum(0).double() / len(x)
        if not apart.isfinite().all():
            raise _infinite(~x.flatten(1).isfinite().all(dim=1), self._images)
        mean = shift.double() + apart
        if self.over == "covariance":
            if not self._count:
                self._scatter = x.new_zeros(flat.shape[1], flat.shape[1])
            _add_products(self._scatter, deviations)
            _subtract_squares(self._scatter, apart, len(x))
            self._merge(len(x), len(x), mean, None)
        else:
            scatter = deviations.square_().sum(0).double()
            if not scatter.isfinite().all():
                raise _infinite(~scatter.isfinite(), None)
            _subtract_squares(scatter, apart, len(x))
            self._merge(len(x), len(x), mean, scatter)

    def _add_channels(self, x: Tensor) -> None:
        if self._waiting.images and self._waiting.pixels != x.numel() // (x.shape[0] * x.shape[1]):
            self._merge_waiting()
        if not self.images:
            self._waiting.shift = x.mean((0, 2, 3)).double().nan_to_num(0, 0, 0)  # bad images are named later
        if self._waiting.add(x) or not self._count:
            self._merge_waiting()

    def _merge_waiting(self) -> None:
        """Merge the sums of the batches that wait."""
        if not self._waiting.images:
            return
        sums, squares = self._waiting.take()
        if not sums.isfinite().all():
            raise _infinite(~sums.isfinite().all(dim=1), self._images)
        if not squares.isfinite().all():
            raise _infinite(~squares.isfinite(), None)
        count = len(sums) * self._waiting.pixels
        apart, scatter = sums.sum(0) / count, squares.sum(0)
        _subtract_squares(scatter, apart, count)
        shift = self._waiting.shift
        self._merge(len(sums), count, apart if shift is None else shift + apart, scatter)

    def merge(self, other: "Moments") -> None:
        """Add what another object has measured, such as that of another rank."""
        if other.over != self.over or (self.count and other.count and other.mean.shape != self.mean.shape):
            raise ValueError(
                f"`other` must hold moments over {self.over} of images of shape {self.shape}, got moments over "
                f"{other.over} of shape {other.shape}. Measure the same images in the same way."
            )
        if other.count:
            self.shape = self.shape or other.shape
            self._merge(other.images, other.count, other.mean, other.scatter)

    def _merge(self, images: int, count: int, mean: Tensor, scatter: Tensor | None) -> None:
        """Merge by Chan's formula, and choose the next shift. ``scatter`` is None where it is added already."""
        if not self._count:
            self._mean = mean.clone()
            self._scatter = self._scatter if scatter is None else scatter.clone()
        else:
            if scatter is not None:
                self._scatter += scatter
            together = self._count + count
            apart = mean - self._mean
            self._mean += apart * (count / together)
            _subtract_squares(self._scatter, apart, -self._count * count / together)
        self._images += images
        self._count += count
        if self.over == "channel":
            far = self._mean.square() > _FAR * self._scatter / self._count
            self._waiting.shift = self._mean.float().double() if bool(far.any()) else None

    def _is_usual(self, images: Any) -> bool:
        """Whether a batch is like the one before, and needs no check: checks take as long as sums of small images."""
        return (
            isinstance(images, Tensor)
            and images.shape[1:] == self._usual
            and images.dtype == torch.float32
            and images.is_cpu
            and not images.requires_grad
        )

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
        if images.dtype == torch.float32 and images.device.type == "cpu" and self.over != "covariance":
            return images.detach() if images.requires_grad else images  # the usual case costs no call
        exact = self.over == "covariance" or images.dtype == torch.float64
        x = images.detach().cpu().to(torch.float64 if exact else torch.float32)
        return x.div_(255) if images.dtype == torch.uint8 else x


def _add_products(scatter: Tensor, x: Tensor) -> None:
    """Add ``x' x`` to the lower triangle, in place. Torch has no function for half of a product."""
    for start in range(0, len(scatter), _ROWS):
        stop = min(start + _ROWS, len(scatter))
        scatter[start:stop, :stop].addmm_(x[:, start:stop].T, x[:, :stop])


def _subtract_squares(scatter: Tensor, apart: Tensor, times: float) -> None:
    """Subtract ``times * apart^2`` from sums of squares, or ``times`` the outer product, in place."""
    if scatter.ndim == 2:
        scatter.addr_(apart, apart, alpha=-times)
    else:
        scatter.addcmul_(apart, apart, value=-times)


def _infinite(bad: Tensor, before: int | None) -> ValueError:
    """The error for images with bad values, numbered behind those ``before``; None if their squares alone are bad."""
    if before is None:
        return ValueError("`images` must have squares within float32, got values above 1e19. Scale them.")
    indices = bad.nonzero().flatten().tolist()
    named = ", ".join(str(before + index) for index in indices[:10])
    return ValueError(
        f"`images` must be finite, got NaN or infinity in image {named}{', ...' if len(indices) > 10 else ''}, counted "
        "from 0 in the order given. Repair these images, or leave them out."
    )
