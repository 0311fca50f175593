"""The geometry of each image as one matrix: from a pixel of the result to its place in the image."""

import torch
from torch import Tensor

from lightning_trainingkit.functional.augmentation_draws import AugmentationDraws

__all__ = ["lens_to_image", "result_to_lens", "to_device"]


def lens_to_image(draws: AugmentationDraws) -> Tensor:
    """Compose the inverse maps of perspective, affine map and flips.

    Coordinates are relative to the centre of the image, in pixels. Flips and affine map follow torchvision's
    ``affine``: the image is flipped, sheared, scaled, rotated clockwise about its centre, then moved.

    Args:
        draws: Parameters of ``N`` images.

    Returns:
        Homogeneous matrices ``(N, 3, 3)`` in float64, on the CPU.
    """
    matrix = torch.eye(3, dtype=torch.float64).repeat(len(draws), 1, 1)
    if draws.horizontal_flip is not None:
        matrix[:, 0, 0] = 1 - 2.0 * draws.horizontal_flip.double()
    if draws.vertical_flip is not None:
        matrix[:, 1, 1] = 1 - 2.0 * draws.vertical_flip.double()
    if draws.angle is not None or draws.scale is not None or draws.shear is not None:
        matrix[:, :2, :2] = matrix[:, :2, :2] @ _inverse(draws)
    if draws.translation is not None:
        matrix[:, :2, 2] = -(matrix[:, :2, :2] @ draws.translation.double()[:, :, None])[:, :, 0]
    if draws.corners is not None:
        matrix = matrix @ _perspective(draws.corners.double(), draws.size)
    return matrix


def result_to_lens(draws: AugmentationDraws, output: tuple[int, int]) -> Tensor:
    """Offset ``(N, 2)`` from the centre of the result to the centre of the image, in pixels (x, y), float64."""
    height, width = draws.size
    if draws.crop is None:
        return torch.zeros(len(draws), 2, dtype=torch.float64)
    return draws.crop.double() + torch.tensor(((output[1] - width) / 2, (output[0] - height) / 2))


def _inverse(draws: AugmentationDraws) -> Tensor:
    """Inverse of rotation times scale times both shears, ``(N, 2, 2)``, written out."""
    zeros = torch.zeros(len(draws), dtype=torch.float64)
    angle = zeros if draws.angle is None else draws.angle.double().deg2rad()
    cos, sin = angle.cos(), angle.sin()
    x, y = (1.0, 1.0) if draws.scale is None else draws.scale.double().unbind(-1)
    shear_x, shear_y = (zeros, zeros) if draws.shear is None else draws.shear.double().deg2rad().tan().unbind(-1)
    (a, b), (c, d) = (cos / x, sin / x), (-sin / y, cos / y)  # of rotation and scale
    both = 1 + shear_x * shear_y
    elements = (both * a + shear_x * c, both * b + shear_x * d, shear_y * a + c, shear_y * b + d)
    return torch.stack(elements, -1).view(-1, 2, 2)


def _perspective(corners: Tensor, size: tuple[int, int]) -> Tensor:
    """Map of the moved corners to the corners of the image, ``(N, 3, 3)``, relative to the centre of the image.

    As in torchvision, corners are indices of pixels, from 0 to the side less 1, while centres of pixels have 0.5 more.
    """
    height, width = size
    x, y = (corners - torch.tensor((width / 2, height / 2), dtype=torch.float64)).unbind(-1)
    right, bottom = width - 1 - width / 2, height - 1 - height / 2
    to_x = torch.tensor((-width / 2, right, right, -width / 2), dtype=torch.float64).expand_as(x)
    to_y = torch.tensor((-height / 2, -height / 2, bottom, bottom), dtype=torch.float64).expand_as(y)
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    rows = (
        torch.stack((x, y, one, zero, zero, zero, -to_x * x, -to_x * y), -1),
        torch.stack((zero, zero, zero, x, y, one, -to_y * x, -to_y * y), -1),
    )
    solution = torch.linalg.solve(torch.cat(rows, 1), torch.cat((to_x, to_y), 1))
    return torch.cat((solution, torch.ones_like(solution[:, :1])), 1).view(-1, 3, 3)


def to_device(parameters: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Move small parameters without waiting for the device."""
    parameters = parameters if dtype is None else parameters.to(dtype)
    if device.type == "cuda":
        parameters = parameters.pin_memory()
    return parameters.to(device, non_blocking=True)
