import json
import math
import subprocess
import sys
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch.utils.data import DataLoader, TensorDataset

from lightning_trainingkit.callbacks.command_center.best_values import BestValues
from lightning_trainingkit.callbacks.command_center.command_center import CommandCenter

WANDB = Path(sys.executable).with_name("wandb")
LOSS = [3.0, 1.0, 2.0, 4.0, 5.0]


class ByStep(L.LightningModule):
    """Logs a loss by step too, so that loggers get other names than callbacks, and a score for callbacks alone."""

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        return self.net(batch[0]).square().mean()

    def validation_step(self, batch, batch_idx):
        loss = 0.0 if self.trainer.sanity_checking else LOSS[self.current_epoch]
        self.log("val_loss", loss + batch_idx, on_step=True, on_epoch=True)
        self.log("val_score", -loss, logger=False)
        self.log("val/loss", loss)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder, epochs, checkpoint=None):
    """Return the summary of the run, and leave a checkpoint behind."""
    loader = DataLoader(TensorDataset(torch.ones(4, 2)), batch_size=2)
    center = CommandCenter(best={"val_score": "max"})
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        log_every_n_steps=1,
        default_root_dir=folder,
        callbacks=[center, EarlyStopping("val_loss", patience=9)],
        **dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False),
    )
    trainer.fit(ByStep(), loader, loader, ckpt_path=checkpoint)
    trainer.validate(trainer.lightning_module, loader, verbose=False)
    trainer.save_checkpoint(folder / "end.ckpt")
    center.finish()
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    command = [WANDB, "leet", "inspect", "--summary", "--json", path]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["summary"]


def test_the_summary_has_the_best_under_the_monitored_name(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    first = fit(tmp_path / "first", 3)
    assert first["val_loss"] == {"min": 1.5}  # the epoch's mean, and not that of the sanity check
    assert first["val_loss_epoch"] == {"min": 1.5}
    assert first["val_score"] == {"max": -1.0}  # which no logger gets
    assert first["val/loss"] == {"min": 1.0}  # W&B's own, in the same shape
    resumed = fit(tmp_path / "resumed", 4, tmp_path / "first/end.ckpt")
    assert resumed["val_loss"] == {"min": 1.5}  # of the whole training
    assert resumed["val_loss_epoch"] == {"min": 4.5}  # of what this run has logged


def test_nan_is_never_the_best():
    best = BestValues({"loss": "min", "score": "max"})
    assert best.update({"loss": math.nan, "other": 1.0}) == {}
    assert best.update({"loss": 2.0, "score": -math.inf}) == {"loss": {"min": 2.0}, "score": {"max": -math.inf}}
    assert best.update({"loss": math.nan, "score": 0.5}) == {"loss": {"min": 2.0}, "score": {"max": 0.5}}
    assert best.update({"loss": 1.0}) == {"loss": {"min": 1.0}}
