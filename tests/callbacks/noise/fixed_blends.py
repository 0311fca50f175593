"""Blends whose draws are known, and a spy whose step is seeded, for comparisons with a loop written by hand."""

import lightning as L
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lightning_trainingkit import CutMix, Mixup
from lightning_trainingkit.callbacks.noise.blending import BlendDraws
from tests.toy import toy_trainer

WEIGHT = 0.3
BOX = torch.tensor([[0, 0, 2, 2]])  # a quarter of 4 x 4 pixels


class FixedMixup(Mixup):
    """Each image is blended with the one that comes as late from the end: 0.3 of its own."""

    def draws(self, count, size, generator):
        rows = count if self.draw == "image" else 1
        return BlendDraws(torch.arange(count).flip(0), torch.full((rows,), WEIGHT, dtype=torch.float64))


class FixedCutMix(CutMix):
    """The same partners, and a box of a quarter of the image."""

    def draws(self, count, size, generator):
        boxes = BOX.expand(count, 4) if self.draw == "image" else BOX
        return BlendDraws(torch.arange(count).flip(0), torch.full((len(boxes),), 0.75, dtype=torch.float64), boxes)


def blended_by_hand(callback, x):
    """The images, and the share of their own targets."""
    if isinstance(callback, Mixup):
        return WEIGHT * x + (1 - WEIGHT) * x.flip(0), WEIGHT
    pasted = x.clone()
    pasted[..., :2, :2] = x.flip(0)[..., :2, :2]
    return pasted, 0.75


class Counted(nn.Sequential):
    """A net that counts its forward passes."""

    forwards = 0

    def forward(self, x):
        self.forwards += 1
        return super().forward(x)


class Spy(L.LightningModule):
    """A net of 3 classes without randomness, whose step a test gives."""

    def __init__(self, step=None):
        super().__init__()
        self.net = Counted(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
        self.step = step

    def training_step(self, batch, batch_idx):
        if self.step is not None:
            return self.step(self, batch)
        x, y = batch
        loss = cross_entropy(self(x), y)
        self.log("train/loss", loss, on_step=False, on_epoch=True)
        return loss

    def forward(self, x):
        return self.net(x)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def data(count=12, classes=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 1, 4, 4, generator=generator), torch.arange(count) % classes


def fit(module, callback, x=None, y=None, batch_size=4, validates=False, **options):
    """Fit one epoch without shuffling, and return the Trainer."""
    if x is None:
        x, y = data()
    trainer = toy_trainer(callback, **{"max_epochs": 1, "limit_val_batches": 0, **options})
    loader = DataLoader(TensorDataset(x, y), batch_size)
    trainer.fit(module, loader, loader if validates else None)
    return trainer
