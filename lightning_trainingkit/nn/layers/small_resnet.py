"""A residual network small enough for a laptop's processor."""

from torch import Tensor, nn

from lightning_trainingkit.functional import _check

__all__ = ["SmallResNet"]


class SmallResNet(nn.Module):
    """Classify small images (8 to 32 pixels a side) by a convolution and three residual blocks.

    The blocks have ``width``, ``2 width`` and ``4 width`` channels. Each block halves the image: 28 pixels become 14,
    7, 4. The mean over the remaining pixels feeds one linear layer, ``head``. Batch normalisation follows every
    convolution.

    Args:
        num_classes: Number of classes ``C``.
        in_channels: Channels of the images: 1 for grey, 3 for colour.
        width: Channels of the first block. 32 gives 0.31 million parameters.

    Raises:
        ValueError: If an argument is not positive.

    Example:
        >>> import torch
        >>> SmallResNet(num_classes=10)(torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 10])

    References:
        He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385.
    """

    def __init__(self, num_classes: int, in_channels: int = 1, width: int = 32) -> None:
        super().__init__()
        for name, value in {"num_classes": num_classes, "in_channels": in_channels, "width": width}.items():
            _check.integer(name, value, "SmallResNet needs at least 1.", least=1)
        self.stem = nn.Sequential(_conv(in_channels, width, 3), nn.ReLU())
        self.blocks = nn.Sequential(_Block(width, width), _Block(width, 2 * width), _Block(2 * width, 4 * width))
        self.head = nn.Linear(4 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(N, in_channels, H, W)`` to logits ``(N, num_classes)``."""
        features: Tensor = self.blocks(self.stem(x))
        logits: Tensor = self.head(features.mean(dim=(2, 3)))
        return logits


class _Block(nn.Module):
    """``relu(shortcut(x) + F(x))``: ``(N, inputs, H, W)`` to ``(N, outputs, ceil(H / 2), ceil(W / 2))``."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(_conv(inputs, outputs, 3, stride=2), nn.ReLU(), _conv(outputs, outputs, 3))
        self.shortcut = _conv(inputs, outputs, 1, stride=2)
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.activation(self.shortcut(x) + self.residual(x))
        return out


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs)
    )
