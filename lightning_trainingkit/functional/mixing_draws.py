"""Random draws for mixup, CutMix and cutout, made on the CPU."""

import numpy as np
import torch
from torch import Tensor

from lightning_trainingkit.functional import _check

__all__ = ["beta_weights", "cutmix_boxes", "kept_share", "random_boxes", "random_partners"]


def beta_weights(count: int, alpha: float, generator: torch.Generator | None = None) -> Tensor:
    r"""Draw weights from :math:`\mathrm{Beta}(\alpha, \alpha)` on the CPU.

    Args:
        count: Number of weights.
        alpha: Strength of the blending, at least 0.01. Below 1 most weights are near 0 or 1.
        generator: Generator on the CPU. None takes torch's own.

    Returns:
        Weights in [0, 1], shape ``(count,)``, float64.

    Raises:
        ValueError: If ``alpha`` is below 0.01.

    Example:
        >>> import torch
        >>> weights = beta_weights(1000, 1.0, torch.Generator().manual_seed(0))
        >>> bool(weights.min() >= 0), round(float(weights.mean()), 1)
        (True, 0.5)
    """
    _check.number("alpha", alpha, "Smaller ones blend nothing, and torch would draw 0.5 (torch #15738).", least=0.01)
    # What torch.distributions.Beta calls; that class takes no generator (torch #45115).
    return torch._sample_dirichlet(torch.full((count, 2), alpha, dtype=torch.float64), generator=generator)[:, 0]


def random_partners(count: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw a partner for each image: the one that comes k places later, with one random k from 1 to ``count - 1``.

    In a shuffled batch such pairs are as random as those of a permutation. No image is its own partner.

    Args:
        count: Number of images. A single image is its own partner.
        generator: Generator on the CPU. None takes torch's own.

    Returns:
        Indices of the partners, shape ``(count,)``, int64, on the CPU. Each image is the partner of one image.

    Example:
        >>> random_partners(2)
        tensor([1, 0])
    """
    places = int(torch.randint(1, max(count, 2), (), generator=generator))
    return torch.arange(places, places + count) % count


def random_boxes(sides: Tensor, size: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
    """Draw boxes with given sides around uniformly drawn pixels. The border of the image clips them.

    Args:
        sides: Height and width of each box in pixels, shape ``(count, 2)``, integers.
        size: Height and width of the images in pixels.
        generator: Generator on the CPU. None takes torch's own.

    Returns:
        Boxes as x1, y1, x2, y2, ends left out, shape ``(count, 4)``, int64, on the CPU.

    Example:
        >>> import torch
        >>> boxes = random_boxes(torch.tensor([[2, 2]]), (8, 8), torch.Generator().manual_seed(0))
        >>> boxes.shape
        torch.Size([1, 4])
    """
    boxes = np.empty((len(sides), 4), dtype=np.int64)  # numpy's small operations take a third of the time of torch's
    for axis, side in ((1, size[0]), (0, size[1])):
        centers = torch.randint(side, (len(sides),), generator=generator).numpy()
        lengths = sides[:, 1 - axis].numpy()
        low = centers - lengths // 2
        np.maximum(low, 0, out=boxes[:, axis])
        np.minimum(low + lengths, side, out=boxes[:, axis + 2])
    return torch.from_numpy(boxes)


def cutmix_boxes(weights: Tensor, size: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
    r"""Draw CutMix's boxes: their share of the image is :math:`1 - w` before the border clips them.

    Args:
        weights: Weight :math:`w` of each image's own part, shape ``(count,)``.
        size: Height and width of the images in pixels.
        generator: Generator on the CPU. None takes torch's own.

    Returns:
        Boxes as x1, y1, x2, y2, ends left out, shape ``(count, 4)``, int64, on the CPU.

    Example:
        >>> import torch
        >>> boxes = cutmix_boxes(torch.tensor([1.0]), (8, 8))
        >>> float(kept_share(boxes, (8, 8)))
        1.0
    """
    sides = np.sqrt(1 - weights.double().numpy())[:, None] * size
    return random_boxes(torch.from_numpy(sides.astype(np.int64)), size, generator)


def kept_share(boxes: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return the share of each image outside of its box: the exact weight of the image's own target.

    Args:
        boxes: Boxes in pixels as x1, y1, x2, y2, ends left out, shape ``(count, 4)``.
        size: Height and width of the images in pixels.

    Returns:
        Shares in [0, 1], shape ``(count,)``, float64.

    Example:
        >>> import torch
        >>> kept_share(torch.tensor([[0, 0, 2, 1]]), (2, 2))
        tensor([0.5000], dtype=torch.float64)
    """
    return 1 - (boxes[:, 2:] - boxes[:, :2]).prod(1).double() / (size[0] * size[1])
