"""Five small models for images of 8 x 8 pixels. Each has a ``body`` and a ``head``."""

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .settings import Settings

__all__ = ["ACTIVATIONS", "Model"]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.1),
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "hardtanh": nn.Hardtanh,
    "hardsigmoid": nn.Hardsigmoid,
    "identity": nn.Identity,
}


class Model(nn.Module):
    """One of the models, by its settings."""

    def __init__(self, settings: Settings, outputs: int = 10) -> None:
        super().__init__()
        self.body, features = _BODIES[settings.model](settings)
        self.head = nn.Linear(features, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def _activation(settings: Settings, default: str = "relu") -> nn.Module:
    return ACTIVATIONS[settings.activation or default]()


def _norm(settings: Settings, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, **dict(settings.batch_norm_options))  # type: ignore[arg-type]


def _mlp(settings: Settings) -> tuple[nn.Module, int]:
    layers: list[nn.Module] = [nn.Flatten()]
    for number in range(settings.depth):
        layers += [nn.Linear(settings.width if number else 64, settings.width), _activation(settings)]
        if settings.dropout:
            layers.append(nn.Dropout(settings.dropout))
    return nn.Sequential(*layers), settings.width


def _cnn(settings: Settings, batch_norm: bool = False) -> tuple[nn.Module, int]:
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((1, 16, 1), (16, 32, 2), (32, 32, 1)):
        layers.append(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=not batch_norm))
        if batch_norm:
            layers.append(_norm(settings, outputs))
        layers.append(_activation(settings))
    layers += [nn.MaxPool2d(2), nn.Flatten()]
    if settings.dropout:
        layers.append(nn.Dropout(settings.dropout))
    return nn.Sequential(*layers), 128


class _Block(nn.Module):
    """The basic block of a residual net."""

    def __init__(self, settings: Settings, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = _norm(settings, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = _norm(settings, outputs)
        self.activation1, self.activation2 = _activation(settings), _activation(settings)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(self.activation1(self.norm1(self.conv1(x)))))
        return self.activation2(y + self.shortcut(x))


def _resnet(settings: Settings) -> tuple[nn.Module, int]:
    stem = nn.Sequential(nn.Conv2d(1, 16, 3, 1, 1, bias=False), _norm(settings, 16), _activation(settings))
    blocks = [_Block(settings, 16, 16, 2), _Block(settings, 16, 32, 1), _Block(settings, 32, 32, 2)]
    parts: list[tuple[str, nn.Module]] = [("stem", stem), ("blocks", nn.Sequential(*blocks))]
    parts += [("pool", nn.AdaptiveAvgPool2d(1)), ("flatten", nn.Flatten()), ("dropout", nn.Dropout(settings.dropout))]
    return nn.Sequential(OrderedDict(parts)), 32


class _Attention(nn.Module):
    """Self-attention with two heads over the patches."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.queries_keys_values(x).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(parts[0], parts[1], parts[2])
        return self.out(y.transpose(1, 2).flatten(2))


class _Layer(nn.Module):
    """A transformer's layer, norms first."""

    def __init__(self, settings: Settings, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = _Attention(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), _activation(settings, "gelu"), nn.Linear(2 * width, width)
        )
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.mlp(self.norm2(x)))


class _Transformer(nn.Module):
    """A vision transformer on 16 patches of 2 x 2 pixels."""

    def __init__(self, settings: Settings, width: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, 2)
        self.positions = nn.Parameter(torch.randn(16, width) * 0.1)
        self.layers = nn.Sequential(_Layer(settings, width), _Layer(settings, width))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        return self.norm(self.layers(tokens)).flatten(1)


_BODIES: dict[str, Callable[[Settings], tuple[nn.Module, int]]] = {
    "mlp": _mlp,
    "cnn": _cnn,
    "cnn_bn": lambda settings: _cnn(settings, True),
    "resnet": _resnet,
    "transformer": lambda settings: (_Transformer(settings, 32), 16 * 32),
}
