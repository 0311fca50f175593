"""Decorrelate images by a fixed linear map: PCA, PCA whitening and ZCA whitening."""

import torch
from torch import Tensor, nn

from lightning_trainingkit.nn.layers.standardize import as_image

__all__ = ["Decorrelate"]


class Decorrelate(nn.Module):
    """Multiply centred images by a fixed matrix.

    ``y = W (x - mean)`` of the flattened image, in the image's own shape, as torchvision's ``LinearTransformation``
    does. ``fit_preprocessing`` fits ``W`` for ``pca``, ``pca_whitening`` and ``zca``. The layer has no parameters. Its
    two buffers are kept with the weights of a model. Bytes are divided by 255 first. The output of floats has their
    dtype. Autocast is off inside: 16 bits lose directions of small variance.

    Args:
        mean: Mean image ``(C, H, W)``.
        matrix: ``W`` of shape ``(D, D)`` with ``D = C H W``, invertible.

    Raises:
        TypeError: If images are neither bytes nor floats.
        ValueError: If the shapes don't fit.

    Example:
        >>> layer = Decorrelate(torch.zeros(1, 1, 2), torch.tensor([[2.0, 0.0], [0.0, 4.0]]))
        >>> y = layer(torch.tensor([0.5, 1.0]).view(1, 1, 1, 2))
        >>> y.flatten().tolist(), layer.inverse(y).flatten().tolist()
        ([1.0, 4.0], [0.5, 1.0])

    References:
        Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009, appendix A.
    """

    mean: Tensor
    matrix: Tensor

    def __init__(self, mean: Tensor, matrix: Tensor) -> None:
        super().__init__()
        if mean.ndim != 3 or matrix.shape != (mean.numel(), mean.numel()):
            raise ValueError(
                f"`matrix` must have shape (D, D) for a `mean` of shape (C, H, W) with D values, got "
                f"{tuple(matrix.shape)} for {tuple(mean.shape)}. Let fit_preprocessing make both."
            )
        if not bool(mean.isfinite().all() and matrix.isfinite().all()):
            raise ValueError("`matrix` and `mean` must be finite, got NaN or infinity. Fit them again.")
        dtype = torch.get_default_dtype()
        self.register_buffer("mean", mean.detach().to(dtype, copy=True))
        self.register_buffer("matrix", matrix.detach().to(dtype, copy=True).contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(..., C, H, W)`` from 0 to 1, or bytes, to decorrelated values in the same shape."""
        x = as_image(x, self.mean)
        with torch.autocast(x.device.type, enabled=False):
            y = (x.to(self.mean.dtype) - self.mean).flatten(-3) @ self.matrix.T
        return y.reshape(x.shape).to(x.dtype)

    def inverse(self, y: Tensor) -> Tensor:
        """Map decorrelated values back to images from 0 to 1. It solves a linear system: for pictures."""
        wanted = y.detach().reshape(-1, self.mean.numel()).cpu().double()
        x: Tensor = torch.linalg.solve(self.matrix.cpu().double(), wanted.T).T
        return (x.reshape(y.shape).to(self.mean) + self.mean).to(y.dtype)

    def extra_repr(self) -> str:
        """Show the shape of the images."""
        return f"images of shape {tuple(self.mean.shape)}"
