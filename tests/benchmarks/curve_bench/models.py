"""The models, and faulty initial weights."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from .settings import Settings
from .tasks import Task

__all__ = ["make_model"]


class Residual(nn.Module):
    """Two layers with a norm, added to their input."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class SmallViT(nn.Module):
    """A transformer on patches of two by two pixels of one channel."""

    def __init__(self, size: int, width: int, dropout: float, depth: int, outputs: int) -> None:
        super().__init__()
        self.patches = nn.Unfold(2, stride=2)
        self.embed = nn.Linear(4, width)
        self.places = nn.Parameter(0.5 * torch.randn((size // 2) ** 2, width))
        self.blocks = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(width, 1, 2 * width, dropout, batch_first=True, norm_first=True)
                for _ in range(depth)
            )
        )
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, outputs))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(self.patches(x).transpose(1, 2)) + self.places
        return self.head(self.blocks(tokens).mean(1))  # type: ignore[no-any-return]


def make_model(task: Task, settings: Settings, inputs: tuple[int, ...], outputs: int) -> nn.Module:
    """Make the model of these settings, from torch's random generator."""
    size = int(torch.tensor(inputs).prod())
    if not settings.width:
        return nn.Sequential(nn.Flatten(), nn.Linear(size, outputs))
    width = max(1, round(task.width * settings.width))
    activation = getattr(nn, task.activation)
    dropout = settings.dropout
    model: nn.Module
    if task.model in ("cnn", "cnn_bn"):
        norm = nn.BatchNorm2d if task.model == "cnn_bn" else lambda _: nn.Identity()
        layers: list[nn.Module] = []
        channels = inputs[0]
        for number in range(2 + settings.depth):
            out = width * (1 + (number > 0))
            layers += [nn.Conv2d(channels, out, 3, stride=1 + (number == 0), padding=1), norm(out), activation()]
            layers += [nn.MaxPool2d(2)] if number == 0 else []
            channels = out
        layers += [nn.Flatten(), nn.Dropout(dropout), nn.Linear(channels * (inputs[1] // 4) ** 2, outputs)]
        model = nn.Sequential(*layers)
    elif task.model == "vit":
        model = SmallViT(inputs[1], max(2, width), dropout, 2 + settings.depth, outputs)
    elif task.model == "residual":
        blocks = [Residual(width, dropout) for _ in range(2 + settings.depth)]
        model = nn.Sequential(
            nn.Flatten(), nn.Linear(size, width), *blocks, nn.LayerNorm(width), nn.Linear(width, outputs)
        )
    else:
        sizes = [size] + [width] * (2 + settings.depth)
        hidden = [
            layer
            for before, after in pairwise(sizes)
            for layer in (nn.Linear(before, after), activation(), nn.Dropout(dropout))
        ]
        model = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(width, outputs))
    _spoil(model, settings.init)
    return model


@torch.no_grad()
def _spoil(model: nn.Module, init: str) -> None:
    factor = {"own": 1.0, "constant": 0.0, "tiny": 0.1, "small": 0.3}[init]
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and factor < 1:
            module.weight.mul_(factor)
            nn.init.zeros_(module.bias)
