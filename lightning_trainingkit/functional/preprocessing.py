"""Principal axes of images: PCA, PCA whitening and ZCA whitening."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.moments import Moments

__all__ = ["AXES", "PREPROCESSINGS", "PrincipalAxes", "linear_map", "principal_axes"]

PREPROCESSINGS = ("none", "mean_image", "channel_mean", "channel", "pca", "pca_whitening", "zca")
"""Names of the preprocessings of images, from none to the whitening that keeps images recognisable."""

AXES = ("pca", "pca_whitening", "zca")
"""The preprocessings that need a covariance."""

_CONSTANT = 1e-7  # of the largest variance: the precision of sums in float32


@dataclass(frozen=True)
class PrincipalAxes:
    """Directions of the largest variance of images.

    Args:
        variances: Explained variances in falling order, shape ``(D,)``, with the divisor ``n - 1``.
        components: A direction in each row, shape ``(D, D)``. Of each, the largest component by size is positive.
        shrinkage: Share in which the covariance was replaced by a multiple of the identity. 0 where there are more
            images than dimensions.
    """

    variances: Tensor
    components: Tensor
    shrinkage: float


def principal_axes(moments: Moments) -> PrincipalAxes:
    """Find the eigenvectors of a covariance, as scikit-learn's ``PCA`` does, up to rounding.

    With at most as many images as dimensions the covariance has no full rank, and whitening would blow up what the
    images do not show. It is then shrunk towards a multiple of the identity by the OAS formula, as in scikit-learn's
    ``OAS``. The directions stay.

    Args:
        moments: Moments over ``covariance``, of two images at least.

    Example:
        >>> moments = Moments("covariance")
        >>> moments.add(torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]]).view(4, 1, 1, 2))
        >>> axes = principal_axes(moments)
        >>> axes.components.tolist(), axes.variances.tolist()
        ([[1.0, 0.0], [0.0, 1.0]], [6.0, 0.6666666666666666])

    References:
        Chen et al., "Shrinkage Algorithms for MMSE Covariance Estimation", IEEE Transactions on Signal Processing
        2010.
    """
    if moments.over != "covariance" or moments.images < 2:
        raise ValueError(
            f"`moments` must be over a covariance and of at least 2 images, got {moments.over} and {moments.images}. "
            "Add more images to Moments('covariance')."
        )
    # The eigenvalues are scaled, not the matrix: a copy of 3,072 x 3,072 numbers takes 75 MB. It has a lower triangle.
    values, vectors = torch.linalg.eigh(moments.scatter, UPLO="L")
    variances = values.flip(0).clamp_min(0) / (moments.count - 1)
    components = vectors.T.flip(0)
    largest = components.abs().argmax(dim=1, keepdim=True)
    components *= torch.where(components.gather(1, largest) < 0, -1.0, 1.0)
    shrinkage = 0.0
    if moments.images <= len(variances):
        shrinkage = _oas(variances * ((moments.count - 1) / moments.count), moments.images)
        variances = (1 - shrinkage) * variances + shrinkage * variances.mean()
    return PrincipalAxes(variances, components, shrinkage)


def linear_map(axes: PrincipalAxes, kind: str) -> Tensor:
    """Make the matrix ``W`` of ``y = W (x - mean)``, shape ``(D, D)``, float64.

    - ``pca``: ``W = V``, uncorrelated coordinates in falling order of their variance.
    - ``pca_whitening``: ``W = diag(s) V``, each with variance 1.
    - ``zca``: ``W = V' diag(s) V``, the whitened data that is nearest to the images.

    ``V`` has the components in its rows, and ``s = 1 / sqrt(variance)``. A direction whose variance is below 1e-7 of
    the largest counts as constant and keeps ``s = 1``, as a constant feature does in scikit-learn's StandardScaler.

    Args:
        axes: Principal axes.
        kind: ``pca``, ``pca_whitening`` or ``zca``.

    Example:
        >>> axes = PrincipalAxes(torch.tensor([4.0, 1.0]), torch.eye(2), 0.0)
        >>> linear_map(axes, "pca_whitening").tolist()
        [[0.5, 0.0], [0.0, 1.0]]

    References:
        Kessy et al., "Optimal Whitening and Decorrelation", The American Statistician 2018, arXiv:1512.00809.
    """
    _check.one_of("kind", kind, AXES, "Try 'pca_whitening'.")
    if kind == "pca":
        return axes.components
    known = axes.variances > _CONSTANT * axes.variances.max()
    scales = torch.where(known, axes.variances, 1.0).rsqrt()
    if kind == "pca_whitening":
        return scales[:, None] * axes.components
    half = scales.sqrt()[:, None] * axes.components
    return half.T @ half


def _oas(variances: Tensor, images: int) -> float:
    """The share of the identity in the oracle-approximating shrinkage of a covariance with these eigenvalues."""
    mean, squares = float(variances.mean()), float(variances.square().mean()) / len(variances)
    above = squares + mean**2
    below = (images + 1) * (squares - mean**2 / len(variances))
    return 1.0 if below <= 0 else min(above / below, 1.0)
