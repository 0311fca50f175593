"""The smallest module and data: an epoch sleeps, so that many trials fit on two cores."""

import json
import os
import time
from pathlib import Path

import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset

RATES = {"lr": {"low": 1e-3, "high": 1.0, "log": True}}


class ToyData(L.LightningDataModule):
    """64 points on a line."""

    def train_dataloader(self):
        return self._loader()

    def val_dataloader(self):
        return self._loader()

    def _loader(self):
        x = torch.linspace(-1, 1, 64).unsqueeze(1)
        return DataLoader(TensorDataset(x, 2 * x), 32)


class ToyModule(L.LightningModule):
    """A line. Each process of a trial writes who it is into the folder of its attempt."""

    def __init__(self, lr: float = 0.1, seconds: float = 0.0):
        super().__init__()
        self.save_hyperparameters()
        self.line = torch.nn.Linear(1, 1)

    def on_train_start(self):
        server = os.getppid()
        (worker,) = (
            int(line.split()[1])
            for line in Path(f"/proc/{server}/status").read_text().splitlines()
            if line.startswith("PPid:")
        )
        path = Path(self.trainer.default_root_dir, "process.json")
        path.with_suffix(".part").write_text(json.dumps({"trial": os.getpid(), "worker": worker}))
        path.with_suffix(".part").rename(path)

    def on_train_epoch_start(self):
        time.sleep(self.hparams.seconds)

    def training_step(self, batch, batch_idx):
        return self._loss(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self._loss(batch))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)

    def _loss(self, batch):
        x, y = batch
        return torch.nn.functional.mse_loss(self.line(x), y)
