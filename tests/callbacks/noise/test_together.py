"""A module of others, unchanged, with batches that are dicts: callbacks on batches from Python and from YAML."""

import lightning as L
import torch
import yaml
from lightning.pytorch.cli import LightningCLI
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy

from lightning_trainingkit import BatchAugmentation, Mixup
from tests.toy import difference


class Theirs(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
        self.accuracy = MulticlassAccuracy(10, average="micro")

    def training_step(self, batch, batch_idx):
        logits = self.net(batch["image"])
        self.accuracy(logits, batch["label"])
        self.log("train/acc", self.accuracy, on_step=False, on_epoch=True)
        self.log("train/right", (logits.argmax(1) == batch["label"]).float().mean(), on_step=False, on_epoch=True)
        return cross_entropy(logits, batch["label"])

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", cross_entropy(self.net(batch["image"]), batch["label"]), batch_size=4)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class TheirData(L.LightningDataModule):
    def __init__(self):
        super().__init__()
        images = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        self.data = [{"image": image, "label": index % 10, "index": index} for index, image in enumerate(images)]

    def train_dataloader(self):
        return DataLoader(self.data, 4, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.data, 4)


QUIET = {"max_epochs": 2, "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
QUIET |= {"enable_model_summary": False, "accelerator": "cpu"}


def fitted(*callbacks):
    L.seed_everything(0, verbose=False)
    module = Theirs()
    trainer = L.Trainer(callbacks=list(callbacks), **QUIET)
    trainer.fit(module, datamodule=TheirData())
    return module, trainer


def test_python_and_yaml_train_the_same(tmp_path, monkeypatch):
    module, trainer = fitted(Mixup(10, seed=1), BatchAugmentation("cifar", seed=2))
    plain, _ = fitted()
    assert difference(module.state_dict(), plain.state_dict()) > 0.01
    # the batches have one size, so that the two ways to count agree
    assert trainer.callback_metrics["train/acc"] > 0
    assert torch.isclose(trainer.callback_metrics["train/acc"].float(), trainer.callback_metrics["train/right"])

    callbacks = [
        {"class_path": "lightning_trainingkit.Mixup", "init_args": {"num_classes": 10, "seed": 1}},
        {"class_path": "lightning_trainingkit.BatchAugmentation", "init_args": {"policy": "cifar", "seed": 2}},
    ]
    config = {"seed_everything": 0, "trainer": {"callbacks": callbacks, **QUIET}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.setattr("sys.argv", ["main.py"])
    arguments = ["fit", "--config", str(tmp_path / "config.yaml")]
    cli = LightningCLI(Theirs, TheirData, args=arguments, save_config_callback=None)
    assert difference(cli.model.state_dict(), module.state_dict()) == 0
