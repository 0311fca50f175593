"""The nets: MLP, CNN, residual net and vision transformer, with and without normalisation, and a new head."""

import copy
import functools
import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lightning_trainingkit.nn import SmallResNet

from .data import parts

__all__ = ["NETS"]


def mlp(*sizes: int, norm: Callable[[int], nn.Module] | None = None) -> nn.Sequential:
    """Linear layers between these sizes, each but the last with a norm and a ReLU."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in itertools.pairwise(sizes[:-1]):
        layers += [nn.Linear(inputs, outputs), *([norm(outputs)] if norm else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(*sizes[-2:]))


def cnn(classes: int, channels: tuple[int, ...], norm: bool) -> nn.Sequential:
    """Convolutions of 3 x 3 with ReLU, each followed by a pooling to half the size, and one linear layer."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise((1, *channels)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), *([nn.BatchNorm2d(outputs)] if norm else []), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(classes))


class PlainResidual(nn.Module):
    """A residual net without normalisation: a convolution, three blocks of two convolutions, mean, linear layer."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
            )
            for _ in range(3)
        )
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x.relu().mean(dim=(2, 3)))


class SmallViT(nn.Module):
    """A vision transformer of two pre-norm layers, without dropout. The mean of the tokens is classified."""

    def __init__(self, classes: int, pixels: int, patch: int, width: int = 32) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, patch, stride=patch)
        self.places = nn.Parameter(0.02 * torch.randn(1, (pixels // patch) ** 2, width))
        layer = nn.TransformerEncoderLayer(
            width, nhead=4, dim_feedforward=2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.places
        return self.head(self.norm(self.layers(tokens)).mean(dim=1))


def new_head(freeze: bool) -> SmallResNet:
    """A residual net that was trained on five kinds of clothing, with a fresh head for five others.

    Args:
        freeze: Whether the head alone is trainable. The frozen part keeps its BatchNorm in training mode, as a user
            who only sets ``requires_grad`` has it.
    """
    net = copy.deepcopy(_trained())
    net.requires_grad_(not freeze)
    net.head = nn.Linear(net.head.in_features, 5)
    return net


@functools.cache
def _trained() -> SmallResNet:
    """Train on tops: two epochs of AdamW, always with the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, data = SmallResNet(5, width=8), parts("tops")[0]
        optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
        for _ in range(2):
            for batch in torch.randperm(len(data)).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(data.x[batch]), data.y[batch]).backward()
                optimizer.step()
    return net


NETS: dict[str, Callable[[], nn.Module]] = {
    "digits MLP": lambda: mlp(64, 64, 64, 10),
    "digits CNN": lambda: cnn(10, (16, 32), norm=False),
    "digits CNN with BatchNorm": lambda: cnn(10, (16, 32), norm=True),
    "digits residual net with BatchNorm": lambda: SmallResNet(10, width=8),
    "digits ViT": lambda: SmallViT(10, pixels=8, patch=2),
    "fashion MLP": lambda: mlp(784, 100, 100, 10),
    "fashion MLP with BatchNorm": lambda: mlp(784, 100, 100, 10, norm=nn.BatchNorm1d),
    "fashion CNN": lambda: cnn(10, (16, 32), norm=False),
    "fashion residual net": lambda: PlainResidual(10, width=16),
    "fashion ViT": lambda: SmallViT(10, pixels=28, patch=7),
    "sphere MLP": lambda: mlp(10, 64, 64, 2),
    "clusters MLP with LayerNorm": lambda: mlp(20, 64, 64, 64, 5, norm=nn.LayerNorm),
    "new head": lambda: new_head(freeze=True),
    "new head and its net": lambda: new_head(freeze=False),
}
