"""The training of `surgery.py`: ResNet-18 on images of 64 px."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision.models import resnet18

from lightning_trainingkit._lightning import L

CLASSES, SIDE, STRENGTH = 10, 64, 1e-6


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
