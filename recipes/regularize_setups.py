"""What regularize.py compares: two networks, and for each regulariser what it adds to a training and to a test."""

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, one_hot

import lightning_trainingkit as kit

VIEWS = {"digits": ["shifts(1)"], "fashion-mnist": ["flip", "shifts(1)"]}  # a flipped digit is no digit
BLOCKS = 3  # residual blocks of the CNN
HIDDEN = 512  # width of the MLP
LR = 4e-3


@dataclass(frozen=True)
class Case:
    """A network and a training set, on which regularisers are compared.

    Args:
        data: ``digits`` or ``fashion-mnist``.
        network: ``CNN`` or ``MLP``.
        images: Number of training images.
        epochs: Epochs of each training.
    """

    data: str
    network: str
    images: int
    epochs: int


@dataclass(frozen=True)
class Setup:
    """What a regulariser changes in a training, and what averages over its noise in a test.

    Args:
        callbacks: Callbacks of the training.
        noise: Callbacks of the training that put noise into layers, and of the test that averages over the noise.
        views: Views of the test images to average over.
        penalty: L1 and L2 of WeightPenalty, of which a training has one.
        smoothing: Share of each label that is spread over all classes.
        norms: Number of residual blocks with BatchNorm, from the first one on.
        vanilla: Rate of vanilla dropout, which scales at test time.
    """

    callbacks: Sequence[L.Callback] = ()
    noise: Sequence[L.Callback] = ()
    views: Sequence[str] = ()
    penalty: dict[str, float] = field(default_factory=dict)
    smoothing: float = 0.0
    norms: int = 0
    vanilla: float | None = None


@dataclass(frozen=True)
class Regulariser:
    """Strengths to choose from, and a function that makes the setup from a strength and the case."""

    strengths: Sequence[float]
    build: Callable[[Any, Case], Setup]


def flips_and_shifts(pixels: float, case: Case) -> Setup:
    """Crop from a padded image. Photos are flipped too."""
    policy = {"padding": int(pixels), "horizontal_flip": 0.5 if "flip" in VIEWS[case.data] else 0.0}
    return Setup([kit.BatchAugmentation(policy)], views=VIEWS[case.data])


def fractional_pooling(count: float, case: Case) -> Setup:
    """Pool over random regions in the first layers with max pooling."""
    names = [f"model.pool{number}" for number in range(1, int(count) + 1)]
    return Setup(noise=[kit.FractionalMaxPool(names, verbose=False)])


def cutout(share: float, case: Case) -> Setup:
    """Fill a square. Its side is a share of the image's."""
    return Setup([kit.Cutout(round(share * (8 if case.data == "digits" else 28)))])


def early_stopping(share: float, case: Case) -> Setup:
    """Stop after a share of the epochs without a better validation accuracy, and restore the best weights."""
    patience = max(1, round(share * case.epochs))
    return Setup([kit.EarlyStopping("val/acc", mode="max", patience=patience)])


def dropped_features(rate: float, case: Case) -> Setup:
    """Drop features in front of the CNN's only linear layer, and the outputs of the MLP's two hidden layers."""
    layers = "model.features" if case.network == "CNN" else "model.*"
    return Setup(noise=[kit.DropoutOverride({layers: rate}, verbose=False)])


REGULARISERS = {
    "none": Regulariser([0], lambda s, case: Setup()),
    "L2": Regulariser([0.005, 0.02, 0.1], lambda s, case: Setup(penalty={"l2": s})),
    "L1": Regulariser([0.003, 0.01, 0.03], lambda s, case: Setup(penalty={"l1": s})),
    "elastic net": Regulariser([0.003, 0.01, 0.03], lambda s, case: Setup(penalty={"l1": s, "l2": s})),
    "dropout": Regulariser([0.1, 0.3, 0.5], dropped_features),
    "DropConnect": Regulariser(
        [0.05, 0.1, 0.2], lambda s, case: Setup(noise=[kit.DropConnect({"model.*": s}, verbose=False)])
    ),
    "BatchNorm": Regulariser([1, 2, 3], lambda s, case: Setup(norms=int(s))),
    "stochastic depth": Regulariser(
        [0.1, 0.2, 0.4], lambda s, case: Setup(noise=[kit.StochasticDepth(s, verbose=False)])
    ),
    "fractional pooling": Regulariser([1, 2, 3], fractional_pooling),
    "flips and shifts": Regulariser([1, 2, 3], flips_and_shifts),
    "cutout": Regulariser([0.25, 0.4, 0.5], cutout),
    "mixup": Regulariser([0.1, 0.4, 1.0], lambda s, case: Setup([kit.Mixup(alpha=s)])),
    "CutMix": Regulariser([0.25, 0.5, 1.0], lambda s, case: Setup([kit.CutMix(probability=s)])),
    "label smoothing": Regulariser([0.05, 0.1, 0.2], lambda s, case: Setup(smoothing=s)),
    "early stopping": Regulariser([0.1, 0.2, 0.4], early_stopping),
    "vanilla dropout": Regulariser([0.1, 0.3, 0.5], lambda s, case: Setup(vanilla=s)),
}
ALL = [name for name in REGULARISERS if name not in ("none", "vanilla dropout")]
TOGETHER = "all together"
# An elastic net is L2 beside L1, and two callbacks that blend images exclude each other: the first one chosen is taken.
EXCLUSIVE = (("elastic net", "L2", "L1"), ("mixup", "CutMix"))


def combined(strengths: dict[str, float]) -> dict[str, float]:
    """Select what is trained all together."""
    left_out = {"none"}
    for names in EXCLUSIVE:
        left_out |= set([name for name in names if name in strengths][1:])
    return {name: strength for name, strength in strengths.items() if name not in left_out}


def new_model(network: str, shape: Sequence[int], classes: int, setups: Sequence[Setup]) -> "Smoothed":
    """Make an untrained classifier. For the same seed of torch, all setups begin with the same weights."""
    vanilla = next((each.vanilla for each in setups if each.vanilla is not None), None)
    norms = max(each.norms for each in setups)
    net = cnn(shape[0], classes, norms) if network == "CNN" else mlp(math.prod(shape), classes, vanilla)
    model = Smoothed(net, classes, lr=LR, weight_decay=0.0)
    model.smoothing = max(each.smoothing for each in setups)
    return model


def cnn(channels: int, classes: int, norms: int, width: int = 16) -> nn.Sequential:
    """A residual network with three max poolings and 0.08 million weights, BatchNorm in the stem and the first blocks.

    Without BatchNorm the stem and the blocks have the same first weights.
    """
    layers: dict[str, nn.Module] = {"stem": nn.Sequential(_conv(channels, width, 3, norms > 0), nn.ReLU())}
    for number in range(BLOCKS):
        layers[f"pool{number + 1}"] = nn.MaxPool2d(2)
        layers[f"block{number + 1}"] = Block(width * max(1, 2 ** (number - 1)), width * 2**number, number < norms)
    layers["features"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    layers["head"] = nn.Linear(width * 2 ** (BLOCKS - 1), classes)
    return nn.Sequential(OrderedDict(layers))


class Block(nn.Module):
    """``relu(shortcut(x) + F(x))``."""

    def __init__(self, inputs: int, outputs: int, norm: bool) -> None:
        super().__init__()
        self.residual = nn.Sequential(_conv(inputs, outputs, 3, norm), nn.ReLU(), _conv(outputs, outputs, 3, norm))
        self.shortcut = nn.Identity() if inputs == outputs else _conv(inputs, outputs, 1, norm)
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Add the branch to the input."""
        out: Tensor = self.activation(self.shortcut(x) + self.residual(x))
        return out


def _conv(inputs: int, outputs: int, kernel: int, norm: bool) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    return nn.Sequential(convolution, *([nn.BatchNorm2d(outputs)] if norm else []))


def mlp(inputs: int, classes: int, vanilla: float | None = None) -> nn.Sequential:
    """Two large linear layers and a head, with vanilla dropout of a rate if asked.

    The network with vanilla dropout is the same function of images and masks as the one with inverted dropout.
    """
    layers: dict[str, nn.Module] = {"flat": nn.Flatten()}
    for number, width in enumerate((inputs, HIDDEN), 1):
        layers[f"features{number}"] = nn.Linear(width, HIDDEN)
        layers[f"relu{number}"] = nn.ReLU()
        if vanilla is not None:
            layers[f"vanilla{number}"] = VanillaDropout(vanilla)
    layers["head"] = nn.Linear(HIDDEN, classes)
    net = nn.Sequential(OrderedDict(layers))
    if vanilla is not None:
        rescale(net, 1 / (1 - vanilla))
    return net


class VanillaDropout(nn.Module):
    """Drop without a scale in training. Multiply by the share of kept values in evaluation, unless it is forgotten."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.forgotten = False

    def forward(self, x: Tensor) -> Tensor:
        """Drop or scale."""
        if self.training:
            return dropout(x, self.rate) * (1 - self.rate)  # torch's dropout divides by the share of kept values
        return x if self.forgotten else x * (1 - self.rate)


@torch.no_grad()
def rescale(net: nn.Module, factor: float) -> None:
    """Multiply the weights of the layers behind dropout."""
    for name in ("features2", "head"):
        net.get_parameter(f"{name}.weight").mul_(factor)


@torch.no_grad()
def apart_from_inverted(net: nn.Sequential, images: Tensor) -> float:
    """Largest difference of class probabilities to inverted dropout with smaller weights: training and evaluation."""
    inverted = copy.deepcopy(net)
    for name, layer in net.named_children():
        if isinstance(layer, VanillaDropout):
            setattr(inverted, name, nn.Dropout(layer.rate))
            rate = layer.rate
    rescale(inverted, 1 - rate)
    largest = 0.0
    for training in (False, True):
        outputs = []
        for each in (net, inverted):
            with torch.random.fork_rng():
                torch.manual_seed(0)  # the same masks
                outputs.append(each.train(training)(images).softmax(dim=1))
        largest = max(largest, (outputs[0] - outputs[1]).abs().max().item())
    return largest


class Smoothed(kit.ImageClassifier):
    """The kit's classifier. In training, a share of each label is spread over all classes."""

    smoothing = 0.0

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Smooth the labels."""
        x, y = batch
        if self.smoothing:
            y = (1 - self.smoothing) * one_hot(y, self.num_classes) + self.smoothing / self.num_classes
        return super().training_step([x, y], batch_idx)
