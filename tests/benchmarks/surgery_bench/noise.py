"""A training step of ResNet-18 at 64 px with noise in the model, against the plain step and layers written by hand."""

import argparse
import copy
import random
from collections.abc import Callable, Sequence

import torch
from noise_bench.comparing import overhead
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock
from torchvision.ops import StochasticDepth

import lightning_trainingkit as kit
from lightning_trainingkit._lightning import L
from lightning_trainingkit.nn.layers.stochastic_depth import depth_rates
from lightning_trainingkit.nn.structure.randomness import noise_on
from surgery_bench.classifier import CLASSES, SIDE, Classifier
from surgery_bench.turns import step_times

STEPS = 2  # of a turn
BLOCKS = [f"layer{layer}.{block}" for layer in range(1, 5) for block in range(2)]
JUDGED = {"StochasticDepth(0.2), row": 1.08, "StochasticDepth(0.2), batch": 0.95, "after remove()": 1.0}
"""Competitors, and how many times as long a step may take as the plain step. The others are shown."""


class Plain(L.Callback):
    """Refuse a module that still has noise of the competitor before."""

    def setup(self, trainer: L.Trainer, pl_module: Classifier, stage: str) -> None:
        noisy = [name for name, each in pl_module.named_modules() if noise_on(each) or "forward" in vars(each)]
        if noisy:
            raise RuntimeError(f"`net` must be plain before a turn, got noise on {noisy}. Look at `teardown`.")


class FirstSkip(L.Callback):
    """Skip each branch once. A training does so in its first steps, and then knows the shapes of the outputs."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def on_train_start(self, trainer: L.Trainer, pl_module: Classifier) -> None:
        noises = [noise for each in pl_module.modules() if (noise := noise_on(each)) is not None]
        for noise in noises:
            noise.number = 0.0
        with torch.no_grad():
            pl_module.net(self.images.to(pl_module.device))


class Removed(L.Callback):
    """Put noise in and take it away before the first step."""

    def __init__(self, *noises: L.Callback) -> None:
        self.noises = noises

    def setup(self, trainer: L.Trainer, pl_module: Classifier, stage: str) -> None:
        for each in self.noises:
            each.setup(trainer, pl_module, stage)
        for each in reversed(self.noises):
            each.remove()

    def teardown(self, trainer: L.Trainer, pl_module: Classifier, stage: str) -> None:
        for each in self.noises:
            each.teardown(trainer, pl_module, stage)


class SwapForATurn(kit.ReplaceActivation):
    """Put the old activations back at the end of a turn."""

    def teardown(self, trainer: L.Trainer, pl_module: Classifier, stage: str) -> None:
        super().teardown(trainer, pl_module, stage)
        self.undo()


class ByHand(L.Callback):
    """Train a model that a user wrote. It has the weights of the plain one."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def setup(self, trainer: L.Trainer, pl_module: Classifier, stage: str) -> None:
        self.plain, pl_module.net = pl_module.net, self.net.to(pl_module.device)

    def teardown(self, trainer: L.Trainer, pl_module: Classifier, stage: str) -> None:
        pl_module.net = self.plain


class BlockWithDepth(BasicBlock):
    """A block of ResNet with torchvision's stochastic depth on its branch."""

    depth: StochasticDepth

    def forward(self, x: Tensor) -> Tensor:
        """Add the branch, if it is kept."""
        branch = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(self.depth(branch) + (x if self.downsample is None else self.downsample(x)))


def with_depth(net: nn.Module) -> None:
    """Write stochastic depth into the blocks."""
    for name, rate in zip(BLOCKS, depth_rates(0.2, len(BLOCKS)), strict=True):
        block = net.get_submodule(name)
        block.__class__ = BlockWithDepth
        block.depth = StochasticDepth(rate, "row")


def with_dropout(net: nn.Module) -> None:
    """Write dropout after the blocks."""
    for name in BLOCKS:
        layer, _, place = name.partition(".")
        net.get_submodule(layer)[int(place)] = nn.Sequential(net.get_submodule(name), nn.Dropout(0.1))


def with_fractions(net: nn.Module) -> None:
    """Write torch's fractional max pooling in the place of max pooling."""
    net.maxpool = nn.FractionalMaxPool2d(3, output_ratio=0.5)


def with_silu(net: nn.Module) -> None:
    """Write SiLU in the place of ReLU."""
    for each in [net, *map(net.get_submodule, BLOCKS)]:
        each.relu = nn.SiLU()


def by_hand(net: nn.Module, write: Callable[[nn.Module], None]) -> list[L.Callback]:
    """The model with layers written into it. It shares all weights and statistics with the plain one."""
    shared = copy.deepcopy(net, {id(each): each for each in (*net.parameters(), *net.buffers())})
    write(shared)
    return [ByHand(shared)]


def rows(args: argparse.Namespace, draw: random.Random) -> list[dict]:
    """The rows of this part."""
    module, quiet = Classifier(), {"verbose": False}
    net, images = module.net, max(args.batch_size // STEPS, 2)
    batch = torch.randn(images, 3, SIDE, SIDE), torch.randint(CLASSES, (images,))
    noises = kit.StochasticDepth(0.2, **quiet), kit.DropConnect({"head": 0.5}, **quiet), kit.FractionalMaxPool(**quiet)
    competitors: dict[str, Sequence[L.Callback]] = {
        "plain": [],
        "StochasticDepth(0.2), row": [kit.StochasticDepth(0.2, **quiet)],
        "torchvision's StochasticDepth in the blocks": by_hand(net, with_depth),
        "StochasticDepth(0.2), batch": [kit.StochasticDepth(0.2, mode="batch", **quiet), FirstSkip(batch[0])],
        "DropoutOverride(0.1), after blocks": [
            kit.DropoutOverride(dict.fromkeys([f"net.{each}" for each in BLOCKS], 0.1), **quiet)
        ],
        "nn.Dropout in the model": by_hand(net, with_dropout),
        "DropConnect(0.1), all layers": [kit.DropConnect({"*": 0.1}, **quiet)],
        "DropConnect(0.5), head, a mask for each example": [kit.DropConnect({"head": 0.5}, mask="sample", **quiet)],
        "FractionalMaxPool": [kit.FractionalMaxPool(**quiet)],
        "nn.FractionalMaxPool2d in the model": by_hand(net, with_fractions),
        "ReplaceActivation('silu')": [SwapForATurn("silu", **quiet)],
        "nn.SiLU in the model": by_hand(net, with_silu),
        "after remove()": [Removed(*noises)],
        "control": [],
    }
    competitors = {name: [Plain(), *callbacks] for name, callbacks in competitors.items()}
    times, _ = step_times(module, batch, competitors, args.rounds, draw, STEPS)
    return [
        overhead(f"{name}: step overhead", times, name, "plain", draw, JUDGED.get(name))
        for name in competitors
        if name != "plain"
    ]
