"""A training step of ResNet-18 at 64 px with WeightPenalty, against the plain step and the formula in the loss."""

import argparse
import random
from typing import Any

import torch
from noise_bench.comparing import overhead
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision.models import resnet18

import lightning_trainingkit as kit
from lightning_trainingkit._lightning import L
from surgery_bench.turns import step_times

CLASSES, SIDE, STRENGTH = 10, 64, 1e-6
JUDGED: dict[str, float | None] = dict.fromkeys(("elastic net", "L2", "L1", "L1, proximal"), 1.03)
JUDGED |= {"formula in the loss": None, "control": None}
"""Competitors, and how many times as long a step may take as the plain step."""


class Classifier(L.LightningModule):
    """ResNet-18 trained by SGD with momentum. `formula` adds the elastic net to the loss, as a user would write it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = resnet18(num_classes=CLASSES)
        self.weights = [each for each in self.net.modules() if isinstance(each, nn.Conv2d | nn.Linear)]
        self.formula = False

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = cross_entropy(self.net(batch[0]), batch[1])
        self.log("train/loss", loss)
        if self.formula:
            tensors = [each.weight for each in self.weights]
            penalty = sum(STRENGTH * (each.abs().sum() + each.square().sum()) for each in tensors)
            self.log("penalty/value", penalty)
            loss = loss + penalty
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 1e-3, momentum=0.9)


class Formula(L.Callback):
    """Switch the module's own penalty on."""

    def on_train_start(self, trainer: L.Trainer, pl_module: Classifier) -> None:
        pl_module.formula = True

    def on_train_end(self, trainer: L.Trainer, pl_module: Classifier) -> None:
        pl_module.formula = False


def rows(args: argparse.Namespace, draw: random.Random) -> list[dict]:
    """The rows of this part."""
    competitors = {
        "plain": [],
        "control": [],
        "elastic net": [kit.WeightPenalty(STRENGTH, STRENGTH, verbose=False)],
        "L2": [kit.WeightPenalty(l2=STRENGTH, verbose=False)],
        "L1": [kit.WeightPenalty(l1=STRENGTH, verbose=False)],
        "L1, proximal": [kit.WeightPenalty(l1=STRENGTH, proximal=True, verbose=False)],
        "formula in the loss": [Formula()],
    }
    batch = torch.randn(args.batch_size, 3, SIDE, SIDE), torch.randint(CLASSES, (args.batch_size,))
    times, logged = step_times(Classifier(), batch, competitors, args.rounds, draw)
    silent = [name for name in competitors if name not in ("plain", "control") and "penalty/value" not in logged[name]]
    if silent:
        raise RuntimeError(f"`penalty/value` must be logged at every step, got none with {silent}. Look at the logger.")
    return [
        overhead(f"WeightPenalty, {name}: step overhead", times, name, "plain", draw, goal)
        for name, goal in JUDGED.items()
    ]
