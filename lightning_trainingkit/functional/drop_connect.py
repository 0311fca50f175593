"""DropConnect: a linear map whose weights are dropped."""

import torch
from torch import Tensor

__all__ = ["drop_connect_linear"]


def drop_connect_linear(x: Tensor, weight: Tensor, bias: Tensor | None, kept: Tensor, rate: float) -> Tensor:
    """Apply a linear map with other dropped weights for each example.

    ``y_n = (M_n * W) x_n / (1 - rate) + b``, so that the mean over masks is ``W x_n + b``. Wan et al. (2013) do not
    scale in training, drop biases too, and draw from a Gaussian approximation at test time.

    Args:
        x: Inputs ``(N, ..., in)``. The positions of an example share its mask.
        weight: Weights ``(out, in)``.
        bias: Biases ``(out,)``, never dropped. None adds nothing.
        kept: Masks ``(N, out, in)``, 1 where a weight is kept and 0 where it is dropped.
        rate: Probability with which the masks drop a weight, in [0, 1).

    Returns:
        Outputs ``(N, ..., out)``.

    Example:
        >>> kept = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
        >>> drop_connect_linear(torch.ones(2, 2), torch.tensor([[1.0, 2.0]]), None, kept, rate=0.5).tolist()
        [[2.0], [4.0]]

    References:
        Wan et al., "Regularization of Neural Networks using DropConnect", ICML 2013.
    """
    weights = kept * (weight / (1 - rate))
    rows = x.reshape(len(x), -1, x.shape[-1])
    y = torch.bmm(rows, weights.transpose(1, 2)).reshape(*x.shape[:-1], len(weight))
    return y if bias is None else y + bias
