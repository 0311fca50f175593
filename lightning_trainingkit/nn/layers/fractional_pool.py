"""Fractional max pooling in front of max pooling: the regions move at random, the size of the output stays."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import fractional_max_pool2d, pad

from lightning_trainingkit.nn.layers.noisy_forward import NoisyForward

__all__ = ["FractionalRegions", "pool_fault"]


class FractionalRegions(NoisyForward):
    """Pool over random regions in training, in the number and the size of the plain pooling's.

    Each image and each channel has regions of its own. Pass ``i`` of ``n`` begins at ``floor(a (i + u)) - floor(a u)``
    with a draw ``u`` and the ratio ``a``. One more pixel of border, on a side drawn for each image and channel, leaves
    room where the plain regions fill the image. Borders on both sides would spoil small images: of four pixels, two
    regions would see the first and the last alone. A single region stays.

    The draws are made here and given to torch's operation, whose own draws are wrong under ``torch.compile``
    (pytorch #183249).

    Args:
        module: The max pooling. ``pool_fault`` must be empty.
        by: Name of the surgery, for errors.
    """

    def __init__(self, module: nn.MaxPool2d, by: str) -> None:
        super().__init__(module, 1.0, by)

    def __call__(self, x: Tensor) -> Any:
        """Pool over random regions, or as the plain pooling does."""
        self.ran = True
        if not self.noisy:
            return self.inner(x)
        pool: Any = self.module
        kernel, border = _pair(pool.kernel_size), _pair(pool.padding)
        stride = _pair(pool.stride if pool.stride is not None else pool.kernel_size)
        images = x if x.dim() == 4 else x.unsqueeze(0)
        if x.dtype in (torch.bfloat16, torch.float16):  # torch finds the places of regions in the type of the images
            images = images.float()
        draws = torch.rand(*images.shape[:2], 4, dtype=images.dtype, device=images.device)
        wide, sizes = images, []
        for number, (side, width, step, edge) in enumerate(zip(images.shape[-2:], kernel, stride, border, strict=True)):
            span = side + 2 * edge - width
            count = -(-span // step) + 1 if pool.ceil_mode else span // step + 1
            if pool.ceil_mode and (count - 1) * step >= side + edge:  # torch's rule: a region begins in the image
                count -= 1
            beyond = max((count - 1) * step - span, 0)  # of the last region, in `ceil_mode`
            sizes.append(count)
            first = draws[:, :, 2 + number, None, None] < 0.5
            wide = _widened(wide, number - 2, edge, beyond, first if count > 1 else None)
        y = fractional_max_pool2d(wide, kernel, output_size=tuple(sizes), _random_samples=draws[..., :2])
        return (y if x.dim() == 4 else y.squeeze(0)).to(x.dtype)


def _widened(images: Tensor, dim: int, edge: int, beyond: int, first: Tensor | None) -> Tensor:
    """Add the plain border in one direction, and one more pixel at the beginning or the end of each image and channel.

    Args:
        images: Images ``(N, C, H, W)``.
        dim: -2 or -1.
        edge: The plain border.
        beyond: Pixels that the last plain region needs behind it. There is no room for one more.
        first: Whether the pixel is at the beginning, ``(N, C, 1, 1)``. None adds none.
    """
    more = 0 if first is None else 1
    widths = (edge + more, edge + (beyond or more))
    wide = pad(images, widths if dim == -1 else (0, 0, *widths), value=-torch.inf)
    if first is None or beyond:
        return wide
    length = wide.shape[dim] - 1
    return torch.where(first, wide.narrow(dim, 0, length), wide.narrow(dim, 1, length))


def pool_fault(module: nn.MaxPool2d) -> str:
    """Say why a max pooling cannot have random regions. Empty if it can."""
    if type(module).forward is not nn.MaxPool2d.forward:
        return f"{type(module).__name__} pools in its own way"
    if module.return_indices:
        return "it returns indices"
    if any(step != 1 for step in _pair(module.dilation)):
        return "it is dilated"
    kernel, border = _pair(module.kernel_size), _pair(module.padding)
    stride = _pair(module.stride if module.stride is not None else module.kernel_size)
    if any(width < edge + 2 for width, edge in zip(kernel, border, strict=True)):
        return f"a region of {kernel[0]} pixels may lie in the border of {border[0]} alone"
    if any(step < 2 for step in stride):
        return "its stride is 1, so that it does not make images smaller"
    return ""


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))
