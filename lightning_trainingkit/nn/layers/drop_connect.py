"""DropConnect in front of linear and convolutional layers: weights are dropped in training."""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear

from lightning_trainingkit.functional.drop_connect import drop_connect_linear
from lightning_trainingkit.nn.layers.noisy_forward import NoisyForward

__all__ = ["CONVOLUTIONS", "DroppedWeights", "Mask"]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
Mask = Literal["batch", "sample"]


class DroppedWeights(NoisyForward):
    """Drop weights of a layer in each training batch, and scale the kept ones by ``1 / (1 - rate)``.

    Args:
        module: An ``nn.Linear``, or an ``nn.Conv1d`` to ``nn.Conv3d``.
        rate: Probability with which a weight is dropped.
        mask: ``batch`` draws a mask for each call, ``sample`` one for each example of a linear layer.
        by: Name of the surgery, for errors.
    """

    def __init__(self, module: nn.Module, rate: float, mask: Mask, by: str) -> None:
        super().__init__(module, rate, by)
        self.mask = mask

    def __call__(self, x: Tensor) -> Any:
        """Run the layer with dropped weights."""
        self.ran = True
        if not self.noisy:
            return self.inner(x)
        layer: Any = self.module
        if isinstance(layer, CONVOLUTIONS):  # torch's own method, so that the padding mode counts
            return layer._conv_forward(x, dropout(layer.weight, self.rate), layer.bias)
        if self.mask == "batch" or x.dim() == 1:
            return linear(x, dropout(layer.weight, self.rate), layer.bias)
        kept = torch.empty(len(x), *layer.weight.shape, dtype=layer.weight.dtype, device=x.device)
        return drop_connect_linear(x, layer.weight, layer.bias, kept.bernoulli_(1 - self.rate), self.rate)
