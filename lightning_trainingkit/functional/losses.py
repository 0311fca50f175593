"""Losses of the lecture that torch scales differently."""

import torch
from torch import Tensor

__all__ = ["multiclass_hinge"]


def multiclass_hinge(logits: Tensor, target: Tensor) -> Tensor:
    """Compute the multiclass hinge (SVM) loss of the lecture.

    ``L = 1/N sum_i sum_{j != y_i} max(0, s_ij - s_{i, y_i} + 1)``. ``torch.nn.functional.multi_margin_loss`` divides
    this by the number of classes ``C``. The lecture does not: with small random weights the loss starts near ``C - 1``.

    Args:
        logits: Scores ``s``, shape ``(N, C)``.
        target: Class indices ``y`` in ``0 .. C - 1``, shape ``(N,)``.

    Returns:
        The mean loss over the batch, a scalar.

    Example:
        >>> import torch
        >>> multiclass_hinge(torch.tensor([[3.2, 5.1, -1.7]]), torch.tensor([0]))  # the lecture's cat
        tensor(2.9000)

    References:
        Crammer and Singer, "On the Algorithmic Implementation of Multiclass Kernel-based Vector Machines", JMLR 2001.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return torch.nn.functional.multi_margin_loss(logits, target) * logits.shape[1]
