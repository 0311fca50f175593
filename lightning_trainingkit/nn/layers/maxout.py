"""Maxout: the largest of several linear pieces."""

from typing import Any

import torch
from torch import Tensor, nn

from lightning_trainingkit.functional import _check

__all__ = ["Maxout", "widen_layer", "widen_norm"]


class Maxout(nn.Module):
    """Take the largest of each ``k`` neighbouring channels: a learned activation, piecewise linear and convex.

    ``y_c = max(z_{kc}, ..., z_{kc+k-1})``. The layer before it has ``k`` times as many outputs as the layer after it
    has inputs, and so ``k`` times the parameters. It neither saturates nor dies.

    Args:
        pieces: Number of pieces ``k``, at least 2.
        dim: The dimension of the channels. Linear layers have -1. Images ``(N, C, H, W)`` have 1 or -3.

    Raises:
        TypeError: If ``pieces`` or ``dim`` is no integer.
        ValueError: If ``pieces`` is below 2. In the forward, if the channels are no multiple of ``pieces``.

    Example:
        >>> Maxout(2, dim=-1)(torch.tensor([[1.0, 3.0, -2.0, -5.0]]))
        tensor([[ 3., -2.]])

    References:
        Goodfellow et al., "Maxout Networks", ICML 2013, arXiv:1302.4389.
    """

    def __init__(self, pieces: int = 2, dim: int = 1) -> None:
        super().__init__()
        self.pieces = _check.integer("pieces", pieces, "2 is usual.", least=2)
        self.dim = _check.integer("dim", dim, "Linear layers have -1, images 1.")

    def forward(self, z: Tensor) -> Tensor:
        """Return the largest piece of each channel."""
        channels = z.shape[self.dim]
        if channels % self.pieces:
            raise ValueError(
                f"`z` must have a multiple of {self.pieces} channels in dimension {self.dim}, got {channels}. "
                "Make the layer before Maxout wider."
            )
        dim = self.dim % z.dim()
        pieces = z.reshape(*z.shape[:dim], channels // self.pieces, self.pieces, *z.shape[dim + 1 :])
        return pieces.max(dim + 1).values

    def extra_repr(self) -> str:
        """Show the arguments."""
        return f"pieces={self.pieces}, dim={self.dim}"


@torch.no_grad()
def widen_layer(layer: nn.Module, pieces: int) -> nn.Module:
    """Make a linear or convolutional layer with ``pieces`` outputs for each output of a layer.

    The first piece has the old weights. The others are drawn with their mean and standard deviation, from torch's
    generator on the CPU. All pieces have the old bias.

    Args:
        layer: ``nn.Linear`` or a plain convolution. It stays as it is.
        pieces: Number of pieces.

    Example:
        >>> widen_layer(nn.Linear(4, 3), 2)
        Linear(in_features=4, out_features=6, bias=True)
    """
    old: Any = layer
    options: dict[str, Any] = {"bias": old.bias is not None, "device": old.weight.device, "dtype": old.weight.dtype}
    new: Any
    if isinstance(layer, nn.Linear):
        new = _empty(nn.Linear, old.in_features, pieces * old.out_features, **options)
    else:
        same = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
        kept = {key: getattr(old, key) for key in same}
        new = _empty(type(old), old.in_channels, pieces * old.out_channels, **kept, **options)
    std, mean = torch.std_mean(old.weight.float(), correction=0)
    drawn = torch.randn(old.weight.shape[0], pieces, *old.weight.shape[1:])
    drawn = (drawn.to(old.weight.device) * std + mean).to(old.weight.dtype)
    drawn[:, 0] = old.weight
    new.weight.copy_(drawn.flatten(0, 1))
    new.weight.requires_grad_(old.weight.requires_grad)
    if old.bias is not None:
        new.bias.copy_(old.bias.repeat_interleave(pieces))
        new.bias.requires_grad_(old.bias.requires_grad)
    return new  # type: ignore[no-any-return]


@torch.no_grad()
def widen_norm(norm: nn.Module, pieces: int) -> nn.Module:
    """Make a BatchNorm for ``pieces`` channels in the place of each channel of a BatchNorm, with its values repeated.

    Example:
        >>> widen_norm(nn.BatchNorm1d(3), 2).num_features
        6
    """
    old: Any = norm
    tensor = old.weight if old.weight is not None else old.running_mean
    where = {} if tensor is None else {"device": tensor.device, "dtype": tensor.dtype}
    new: Any = type(old)(pieces * old.num_features, old.eps, old.momentum, old.affine, old.track_running_stats, **where)
    for name, value in [*old.named_parameters(), *old.named_buffers()]:
        mine = getattr(new, name)
        mine.copy_(value.repeat_interleave(pieces) if value.dim() else value)
        if isinstance(mine, nn.Parameter):
            mine.requires_grad_(value.requires_grad)
    return new  # type: ignore[no-any-return]


def _empty(kind: Any, *args: Any, device: torch.device, **options: Any) -> nn.Module:
    """Make a layer without drawing its weights."""
    layer: nn.Module = kind(*args, device="meta", **options).to_empty(device=device)
    return layer
