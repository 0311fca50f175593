"""Small real trainings for the tests: a module that knows nothing of the kit, its data, and a quiet Trainer."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lightning_trainingkit._lightning import L


class ToyModule(L.LightningModule):
    """A net on 1x4x4 images with convolution, BatchNorm and dropout, trained with momentum and a schedule."""

    def __init__(self, lr: float = 0.1):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 2)
        )

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = cross_entropy(self(x), y)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        logits = self(x)
        self.log("val/loss", cross_entropy(logits, y))
        self.log("val/acc", (logits.argmax(1) == y).float().mean())

    def test_step(self, batch, batch_idx):
        x, y = batch
        self.log("test/loss", cross_entropy(self(x), y))

    def predict_step(self, batch, batch_idx):
        return self(batch[0])

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=self.hparams.lr, momentum=0.9)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.7)}


class Branch(nn.Module):
    """A residual block of the channels of its input."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv, self.norm, self.relu = (
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        )

    def forward(self, x):
        return x + self.relu(self.norm(self.conv(x)))


class ResidualModule(ToyModule):
    """A net with two residual blocks and max pooling."""

    def __init__(self, lr: float = 0.1):
        super().__init__(lr)
        self.net = nn.Sequential(
            *(
                nn.Conv2d(1, 4, 1),
                nn.BatchNorm2d(4),
                Branch(4),
                nn.MaxPool2d(2),
                Branch(4),
                nn.Flatten(),
                nn.Linear(16, 2),
            )
        )


class ScriptedModule(ToyModule):
    """Logs the given values as ``val/loss``, one an epoch (the last one repeats), whatever the net does."""

    def __init__(self, values, lr: float = 0.1):
        super().__init__(lr)
        self.values = values
        self.seen = []  # a copy of the weights at each validation

    def validation_step(self, batch, batch_idx):
        self.log("val/acc", 0.5)

    def on_validation_epoch_start(self):
        if not self.trainer.sanity_checking:
            self.seen.append({name: value.clone() for name, value in self.state_dict().items()})

    def on_validation_epoch_end(self):
        self.log("val/loss", float(self.values[min(self.current_epoch, len(self.values) - 1)]))


def toy_data(size: int = 32):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(size, 1, 4, 4, generator=generator)
    return TensorDataset(x, (x.mean((1, 2, 3)) > 0).long())


def toy_loaders(batch_size: int = 8):
    return DataLoader(toy_data(), batch_size, shuffle=True), DataLoader(toy_data(), 16)


def toy_trainer(*callbacks, **options):
    defaults = {"max_epochs": 2, "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    defaults |= {"log_every_n_steps": 1}
    defaults |= {"accelerator": "cpu", "enable_checkpointing": any(hasattr(c, "save_top_k") for c in callbacks)}
    return L.Trainer(callbacks=list(callbacks), **defaults | options)


def difference(one, other) -> float:
    """Largest absolute difference of two state dicts."""
    assert one.keys() == other.keys()
    return max((one[name].double() - other[name].double()).abs().max().item() for name in one)
