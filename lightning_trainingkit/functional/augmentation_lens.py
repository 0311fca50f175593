"""Lens distortion after Brown and Conrady: where a pixel looks in the undistorted image, and back."""

import torch
from torch import Tensor

__all__ = ["check_lens", "distort", "undistort"]


def distort(x: Tensor, y: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
    """Move points as a lens does. They are relative to the centre, in units of half the diagonal.

    With ``r^2 = x^2 + y^2``,

    ``x' = x (1 + k1 r^2 + k2 r^4 + k3 r^6) + 2 p1 x y + p2 (r^2 + 2 x^2)``, and
    ``y' = y (1 + k1 r^2 + k2 r^4 + k3 r^6) + p1 (r^2 + 2 y^2) + 2 p2 x y``.

    The polynomial holds for the image alone, and would fold back far outside. So a point outside the unit circle is
    moved by the factor of the circle's point in the same direction.

    Args:
        x: Horizontal coordinates, of any shape.
        y: Vertical coordinates, of a shape that broadcasts with ``x``.
        coefficients: ``k1, k2, k3, p1, p2`` in the last dimension. The other dimensions broadcast with ``x``.

    Returns:
        The moved coordinates.

    References:
        Brown, "Close-Range Camera Calibration", Photogrammetric Engineering 1971. The order of the coefficients
        differs from OpenCV's ``k1, k2, p1, p2, k3``.
    """
    k1, k2, k3, p1, p2 = coefficients.unbind(-1)
    outside = (x * x + y * y).clamp_(min=1).sqrt_()
    x, y = x / outside, y / outside
    square = x * x + y * y
    radial = 1 + square * (k1 + square * (k2 + square * k3))
    moved_x = x * radial + 2 * p1 * x * y + p2 * (square + 2 * x * x)
    moved_y = y * radial + p1 * (square + 2 * y * y) + 2 * p2 * x * y
    return moved_x * outside, moved_y * outside


def undistort(x: Tensor, y: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
    """Return the points that `distort` moves to the given ones, by Newton's method.

    Args:
        x: Horizontal coordinates.
        y: Vertical coordinates, in the shape of ``x``.
        coefficients: ``k1, k2, k3, p1, p2`` in the last dimension, allowed by `check_lens`.

    Returns:
        The coordinates before `distort`.
    """
    target_x, target_y = x.double(), y.double()
    coefficients = coefficients.double()
    guess_x, guess_y = target_x, target_y
    for _ in range(20):  # a monotone map: few steps reach the precision of doubles
        found_x, found_y = distort(guess_x, guess_y, coefficients)
        xx, xy, yx, yy = _jacobian(guess_x, guess_y, coefficients)
        error_x, error_y = target_x - found_x, target_y - found_y
        determinant = xx * yy - xy * yx
        guess_x = guess_x + (yy * error_x - xy * error_y) / determinant
        guess_y = guess_y + (xx * error_y - yx * error_x) / determinant
    return guess_x.to(x.dtype), guess_y.to(y.dtype)


def _jacobian(x: Tensor, y: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Derivatives of both moved coordinates by ``x`` and ``y``."""
    k1, k2, k3, p1, p2 = coefficients.unbind(-1)
    outside = (x * x + y * y).clamp(min=1).sqrt()
    x, y = x / outside, y / outside
    square = x * x + y * y
    radial = 1 + square * (k1 + square * (k2 + square * k3))
    slope = 2 * (k1 + square * (2 * k2 + square * 3 * k3))
    mixed = slope * x * y + 2 * p1 * x + 2 * p2 * y
    xx = radial + slope * x * x + 2 * p1 * y + 6 * p2 * x
    yy = radial + slope * y * y + 6 * p1 * y + 2 * p2 * x
    # outside the circle the map is f(x / r) r: along the radius it grows by f itself
    on_circle_x, on_circle_y = distort(x, y, coefficients)
    along_x, along_y = on_circle_x - xx * x - mixed * y, on_circle_y - mixed * x - yy * y
    far = (outside > 1).to(x.dtype)
    return xx + far * along_x * x, mixed + far * along_x * y, mixed + far * along_y * x, yy + far * along_y * y


def check_lens(ranges: dict[str, tuple[float, float]]) -> None:
    """Refuse coefficients under which two parts of an image would come from the same place.

    The smallest stretch of the radial part must exceed the largest shrinkage ``6 r |p|`` of the tangential part for
    every radius ``r`` of the image. Then the map is one to one.

    Args:
        ranges: Ranges of the coefficients ``k1`` to ``k3``, ``p1`` and ``p2``.

    Raises:
        ValueError: If a draw from the ranges may fold the image.
    """
    square = torch.linspace(0, 1, 257, dtype=torch.float64)
    k1, k2, k3 = (ranges[name][0] for name in ("k1", "k2", "k3"))  # both stretches grow with each coefficient
    across = 1 + square * (k1 + square * (k2 + square * k3))
    along = 1 + square * (3 * k1 + square * (5 * k2 + square * 7 * k3))
    tangential = sum(max(abs(bound) for bound in ranges[name]) ** 2 for name in ("p1", "p2")) ** 0.5
    if (torch.minimum(across, along) - 6 * tangential * square.sqrt()).min() < 0.05:
        raise ValueError(
            f"`lens` must hold ranges that never fold an image, got {ranges}. Take smaller ones: 0.2 for k1 alone, "
            "0.02 for p1 and p2, say."
        )
