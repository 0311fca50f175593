"""Mixup, CutMix and cutout as functions of their draws, which `mixing_draws` makes."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

__all__ = ["blend_targets", "cutmix", "cutout", "mixup"]


def mixup(images: Tensor, partner: Tensor, weight: float | Tensor) -> Tensor:
    r"""Blend each image with its partner.

    :math:`x_i' = w x_i + (1 - w) x_{p_i}`, for one :math:`w` or one for each image.

    Args:
        images: Images or other floating-point tensors, shape ``(N, ...)``.
        partner: Index :math:`p_i` of each image's partner, shape ``(N,)``.
        weight: One number in [0, 1], or a tensor of shape ``(N,)``. Each image's own share :math:`w`.

    Returns:
        A new tensor in the shape and dtype of ``images``.

    Raises:
        TypeError: If the images are integers, which have no blends in between.

    Example:
        >>> import torch
        >>> mixup(torch.tensor([[0.0], [1.0]]), torch.tensor([1, 0]), 0.75)
        tensor([[0.2500],
                [0.7500]])

    References:
        Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, arXiv:1710.09412.
    """
    if not images.is_floating_point():
        raise TypeError(f"`images` must be floating point, got {images.dtype}. Convert them first: images / 255, say.")
    if isinstance(weight, Tensor) and weight.ndim:
        rows = weight.to(images.device, images.dtype, non_blocking=True)
        return torch.lerp(_taken(images, partner), images, rows.view(-1, *[1] * (images.ndim - 1)))
    return torch.lerp(_taken(images, partner), images, float(weight))


def cutmix(images: Tensor, partner: Tensor, boxes: Tensor) -> Tensor:
    """Paste a box of each image's partner into the image. Masks are pasted by the same call.

    Args:
        images: Images or masks of any dtype, shape ``(N, ..., H, W)``.
        partner: Index of each image's partner, shape ``(N,)``.
        boxes: Boxes in pixels as x1, y1, x2, y2, ends left out. Shape ``(N, 4)``, or ``(1, 4)`` for one box for all.

    Returns:
        A new tensor in the shape and dtype of ``images``.

    Example:
        >>> import torch
        >>> images = torch.tensor([[[0, 0]], [[1, 1]]])
        >>> cutmix(images, torch.tensor([1, 0]), torch.tensor([[0, 0, 1, 1]]))
        tensor([[[1, 0]],
        <BLANKLINE>
                [[0, 1]]])

    References:
        Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", ICCV 2019,
        arXiv:1905.04899.
    """
    if _one_box(boxes):
        x1, y1, x2, y2 = boxes[0].tolist()
        pasted = images.clone()
        pasted[..., y1:y2, x1:x2] = _taken(images, partner)[..., y1:y2, x1:x2]
        return pasted
    return torch.where(_inside(boxes, images), _taken(images, partner), images)


def cutout(images: Tensor, boxes: Tensor, fill: float | Tensor = 0.0) -> Tensor:
    """Fill a box of each image.

    Args:
        images: Images, shape ``(N, ..., H, W)``.
        boxes: Boxes in pixels as x1, y1, x2, y2, ends left out. Shape ``(N, 4)``, or ``(1, 4)`` for one box for all.
        fill: Value of the filled pixels, a number or a tensor that broadcasts to ``images``.

    Returns:
        A new tensor in the shape and dtype of ``images``.

    Example:
        >>> import torch
        >>> cutout(torch.ones(1, 1, 1, 3), torch.tensor([[1, 0, 3, 1]]))
        tensor([[[[1., 0., 0.]]]])

    References:
        DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017,
        arXiv:1708.04552.
    """
    if _one_box(boxes) and not isinstance(fill, Tensor):
        x1, y1, x2, y2 = boxes[0].tolist()
        filled = images.clone()
        filled[..., y1:y2, x1:x2] = fill
        return filled
    value = torch.as_tensor(fill, dtype=images.dtype).to(images.device, non_blocking=True)
    return torch.where(_inside(boxes, images), value, images)


def blend_targets(targets: Tensor, partner: Tensor, weight: float | Tensor, num_classes: int | None = None) -> Tensor:
    r"""Blend the targets of pairs: :math:`y_i' = w y_i + (1 - w) y_{p_i}`.

    Args:
        targets: Class indices of shape ``(N,)``, or floating-point targets of shape ``(N, ...)``.
        partner: Index :math:`p_i` of each image's partner, shape ``(N,)``.
        weight: One number in [0, 1], or a tensor of shape ``(N,)``. Each image's own share :math:`w`.
        num_classes: Number of classes ``C``. Class indices need it; other targets ignore it.

    Returns:
        Probabilities ``(N, C)`` for class indices, in float32. Other targets keep their shape and dtype.

    Raises:
        TypeError: If the targets are integers, and no class indices of known number.

    Example:
        >>> import torch
        >>> blend_targets(torch.tensor([0, 1]), torch.tensor([1, 0]), 0.75, num_classes=2)
        tensor([[0.7500, 0.2500],
                [0.2500, 0.7500]])
    """
    if not targets.is_floating_point():
        if targets.ndim != 1 or num_classes is None:
            found = f"{targets.dtype} of shape {tuple(targets.shape)} and num_classes={num_classes}"
            raise TypeError(
                f"`targets` must be floating point, or class indices (N,) beside `num_classes`, got {found}. "
                "Give the number of classes."
            )
        targets = one_hot(targets.long(), num_classes).float()
    return mixup(targets, partner, weight)


def _taken(images: Tensor, partner: Tensor) -> Tensor:
    partner = partner.to(images.device, non_blocking=True)
    # index_select takes a fifth of the time on a CPU, but loses the order of memory of channels_last.
    return images.index_select(0, partner) if images.is_contiguous() else images[partner]


def _one_box(boxes: Tensor) -> bool:
    return len(boxes) == 1 and boxes.device.type == "cpu"  # a box on a GPU must not be read by the host


def _inside(boxes: Tensor, images: Tensor) -> Any:
    height, width = images.shape[-2:]
    x1, y1, x2, y2 = boxes.to(images.device, non_blocking=True)[:, :, None].unbind(1)
    x, y = (torch.arange(side, device=images.device) for side in (width, height))
    inside = ((y >= y1) & (y < y2))[:, :, None] & ((x >= x1) & (x < x2))[:, None, :]
    return inside.view(-1, *[1] * (images.ndim - 3), height, width)
