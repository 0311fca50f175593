import json
import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyLogger
from torch.utils.data import DataLoader

from lightning_trainingkit.callbacks.command_center.command_center import CommandCenter
from lightning_trainingkit.dashboards.other_loggers import noted_log_dirs

WANDB = Path(sys.executable).with_name("wandb")


class Broken(DummyLogger):
    @property
    def log_dir(self):
        raise RuntimeError("no folder yet")


class Remote(DummyLogger):
    log_dir = "s3://bucket/run"


class Local(DummyLogger):
    log_dir = None

    def __init__(self, folder):
        super().__init__()
        self.log_dir = folder


class Module(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        loss = self.net(batch).mean()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def fit(tmp_path, monkeypatch):
    """Fit with some loggers and callbacks, and return the logger of W&B."""
    monkeypatch.delenv("WANDB_MODE", raising=False)

    def fit(loggers, *callbacks):
        trainer = L.Trainer(
            max_epochs=1,
            accelerator="cpu",
            default_root_dir=tmp_path,
            logger=loggers,
            callbacks=[*callbacks],
            log_every_n_steps=1,
            **dict.fromkeys(("enable_progress_bar", "enable_model_summary"), False),
        )
        trainer.fit(Module(), DataLoader(torch.ones(2, 2)))
        callbacks[0].finish()
        return trainer.loggers[-1]

    return fit


def read_config(root):
    (run,) = root.glob("wandb/offline-run-*/run-*.wandb")
    command = [WANDB, "leet", "inspect", "--summary", "--json", run]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["config"]


def noted(root):
    (run,) = root.glob("wandb/offline-run-*/run-*.wandb")
    return noted_log_dirs(run.parent)


def test_the_folders_of_all_other_loggers_are_noted(tmp_path, fit):
    loggers = [
        CSVLogger(tmp_path, name="csv"),
        Broken(),
        CSVLogger(tmp_path, name="csv"),
        Remote(),
        TensorBoardLogger(tmp_path, name="board"),
        DummyLogger(),
        Local(tmp_path / "mine"),
        Local(3),
    ]
    fit(loggers, CommandCenter(), ModelCheckpoint(tmp_path / "weights"))
    found = [tmp_path / each for each in ("csv/version_0", "csv/version_1", "board/version_0", "mine")]
    assert noted(tmp_path) == found
    assert Path(found[0], "metrics.csv").is_file()
    assert list(found[2].glob("events*"))


def test_a_fit_that_w_and_b_alone_records_notes_nothing(tmp_path, fit):
    fit(False, CommandCenter(), ModelCheckpoint(tmp_path / "weights"))
    assert not list(tmp_path.glob("wandb/*/other_loggers.json"))


@pytest.mark.parametrize("loggers", [True, False], ids=["CSVLogger", "W&B alone"])
def test_settings_do_not_repeat_which_run_this_is(tmp_path, fit, monkeypatch, loggers):
    center = CommandCenter("group", "eval", name="first", tags=["tag"], best={"val/f1": "max"})
    logger = fit(
        [CSVLogger(tmp_path)] if loggers else False,
        center,
        ModelCheckpoint(save_top_k=-1),
        ModelCheckpoint("weights", every_n_epochs=2),
    )
    settings = read_config(tmp_path)["callbacks"]
    assert settings["CommandCenter"] == {"best": {"val/f1": "max"}}
    assert settings["ModelCheckpoint"]["save_top_k"] == -1
    assert "dirpath" not in settings["ModelCheckpoint"]  # named by Lightning after the run
    assert settings["ModelCheckpoint-2"]["dirpath"] == str(Path("weights").absolute())
    assert str(logger.version) not in str(settings)
