"""The LightningModule, as a user writes it."""

from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.nn import functional as F

from .models import Model
from .optimizers import make_optimizer, make_schedule
from .settings import Settings
from .weights import change_weights

__all__ = ["Net", "Regression"]


class Net(L.LightningModule):
    """A classifier of digits."""

    outputs = 10

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.model = Model(settings, self.outputs)
        change_weights(self.model, settings.init)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)

    def loss(self, scores: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(scores, y)

    def score(self, scores: Tensor, y: Tensor) -> Tensor:
        return (scores.argmax(1) == y).float().mean()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        loss = self.loss(self(x), y) * self.settings.loss_factor
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        scores = self(x)
        self.log("val_loss", self.loss(scores, y))
        self.log("val_score", self.score(scores, y))

    def configure_optimizers(self) -> Any:
        optimizer = make_optimizer(self.settings, self.parameters())
        if not self.settings.schedule:
            return optimizer
        scheduler = make_schedule(self.settings, optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class Regression(Net):
    """Where in the image the ink is, in two standardised numbers. The score is R2."""

    outputs = 2

    def loss(self, scores: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(scores, y)

    def score(self, scores: Tensor, y: Tensor) -> Tensor:
        return 1 - F.mse_loss(scores, y) / torch.var(y)
