"""A training step of ResNet-18 at 64 px with WeightPenalty, against the plain step and the formula in the loss."""

import argparse
import random

import torch
from noise_bench.comparing import overhead

import lightning_trainingkit as kit
from lightning_trainingkit._lightning import L
from surgery_bench.classifier import CLASSES, SIDE, STRENGTH, Classifier
from surgery_bench.turns import step_times

JUDGED: dict[str, float | None] = dict.fromkeys(("elastic net", "L2", "L1", "L1, proximal"), 1.03)
JUDGED |= {"formula in the loss": None, "control": None}
"""Competitors, and how many times as long a step may take as the plain step."""


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
