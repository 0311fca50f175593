"""Standardise images by fixed means and standard deviations."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Standardize", "as_image"]


class Standardize(nn.Module):
    """Subtract a mean from images and divide by a standard deviation, both fixed.

    ``y = (x - mean) / std``, per channel or per pixel. The layer has no parameters. Its two buffers are kept with the
    weights of a model, so that ``nn.Sequential(Standardize(mean, std), net)`` takes images from 0 to 1. Bytes are
    divided by 255 first. The output of floats has their dtype.

    Args:
        mean: A number for each channel, or a mean image ``(C, H, W)``.
        std: In the shape of ``mean`` or a number for each channel, positive. None leaves the scale as it is.

    Raises:
        TypeError: If images are neither bytes nor floats.
        ValueError: If ``std`` is not positive, or a number is not finite.

    Example:
        >>> layer = Standardize([0.5], [0.25])
        >>> y = layer(torch.tensor([0.0, 1.0]).view(1, 1, 1, 2))
        >>> y.flatten().tolist(), layer.inverse(y).flatten().tolist()
        ([-2.0, 2.0], [0.0, 1.0])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("mean", _per_channel("mean", mean))
        self.register_buffer("std", _per_channel("std", [1.0] * len(self.mean) if std is None else std))
        if not bool((self.std > 0).all()):
            raise ValueError(
                f"`std` must be above 0, got {self.std.min():g}. Use 1 for a channel or pixel that is constant."
            )
        if self.std.shape not in (self.mean.shape, (len(self.mean), 1, 1)):
            raise ValueError(
                f"`std` must have the shape of `mean`, {tuple(self.mean.shape)}, or a number for each of its "
                f"{len(self.mean)} channels, got {tuple(self.std.shape)}. Give one of them."
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(..., C, H, W)`` from 0 to 1, or bytes, to standardised images."""
        x = as_image(x, self.mean)
        return ((x - self.mean) / self.std).to(x.dtype)

    def inverse(self, y: Tensor) -> Tensor:
        """Map standardised images ``(..., C, H, W)`` back to images from 0 to 1."""
        return (y * self.std + self.mean).to(y.dtype)

    def extra_repr(self) -> str:
        """Show the numbers of up to four channels, or the shape."""
        if self.mean.numel() > 4 or self.std.numel() > 4:
            return f"mean of shape {tuple(self.mean.shape)}, std of shape {tuple(self.std.shape)}"
        mean, std = ([round(value, 4) for value in each.flatten().tolist()] for each in (self.mean, self.std))
        return f"mean={mean}, std={std}"


def as_image(x: Tensor, like: Tensor) -> Tensor:
    """Return floats as they are, and bytes as floats from 0 to 1 in the dtype of ``like``."""
    if x.dtype == torch.uint8:
        return x.to(like.dtype) / 255
    if not x.is_floating_point():
        raise TypeError(f"`x` must be bytes or floats, got {x.dtype}. Convert the images, such as with v2.ToDtype.")
    return x


def _per_channel(name: str, value: Any) -> Tensor:
    numbers = torch.as_tensor(value).detach().clone().to(torch.get_default_dtype())
    if numbers.ndim not in (1, 3) or not numbers.numel():
        raise ValueError(
            f"`{name}` must be a number for each channel or have shape (C, H, W), got shape {tuple(numbers.shape)}. "
            "Write [0.5], say."
        )
    if not bool(numbers.isfinite().all()):
        raise ValueError(f"`{name}` must be finite, got NaN or infinity. Measure it again.")
    return numbers[:, None, None] if numbers.ndim == 1 else numbers
