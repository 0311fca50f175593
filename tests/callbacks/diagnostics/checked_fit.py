"""Fits a small module with `LoopChecks`, as `HealthReport` calls them."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from lightning_trainingkit._lightning import L
from lightning_trainingkit.callbacks.diagnostics.loop_checks import LoopChecks
from tests.toy import toy_data, toy_trainer


class Checked(L.Callback):
    """Hands the hooks on, and keeps the findings after each epoch and of the whole fit."""

    def __init__(self, every_n_steps: int = 2):
        self.every_n_steps = every_n_steps
        self.checks = LoopChecks()
        self.early, self.final = [], []

    def on_train_start(self, trainer, pl_module):
        self.checks.on_train_start(trainer, pl_module)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.checks.look = self.checks.batches % self.every_n_steps == 0
        self.checks.on_train_batch_start(trainer, pl_module, batch, batch_idx)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.checks.on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self.checks.look:
            self.early += self.checks.findings(trainer, pl_module, final=False)

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        self.checks.on_validation_batch_start(trainer, pl_module, batch, batch_idx, dataloader_idx)

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self.checks.on_validation_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)

    def on_train_end(self, trainer, pl_module):
        self.final = self.checks.findings(trainer, pl_module, final=True)
        self.checks.remove()
        self.checks.remove()


class Net(L.LightningModule):
    """Convolution, BatchNorm, dropout and two linear layers on 1x4x4 images."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2))
        self.middle = nn.Sequential(nn.Linear(16, 8), nn.Tanh())
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.middle(self.body(x)))

    def loss(self, batch):
        return cross_entropy(self(batch[0]), batch[1])

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.loss(batch))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class ManualNet(Net):
    """The same in manual optimization, with a list of what to do in each step."""

    def __init__(self, *order):
        super().__init__()
        self.automatic_optimization = False
        self.order = order or ("zero", "backward", "step")

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        for action in self.order:
            if action == "zero":
                optimizer.zero_grad()
            elif action == "keep zeros":
                optimizer.zero_grad(set_to_none=False)
            elif action == "step":
                optimizer.step()
            else:
                self.manual_backward(self.loss(batch))


def fit(module, epochs=3, batch_size=4, callbacks=(), **options):
    """Fit, and return the findings during and after the fit."""
    torch.manual_seed(0)
    checked = Checked()
    loaders = DataLoader(toy_data(), batch_size, shuffle=True), DataLoader(toy_data(), 16)
    toy_trainer(checked, *callbacks, max_epochs=epochs, **options).fit(module, *loaders)
    return checked


def kinds(module, **options):
    """The kinds of the final findings, and of those during the fit, which the final ones must hold."""
    checked = fit(module, **options)
    final = [finding.kind for finding in checked.final]
    assert {finding.kind for finding in checked.early} <= set(final)
    return final
