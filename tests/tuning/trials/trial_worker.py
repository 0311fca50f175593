"""One worker of a study: ``python trial_worker.py STORAGE FOLDER TRIALS EPOCHS SECONDS [RANKS]``."""

import os
import sys
import time
from pathlib import Path

import optuna

from lightning_trainingkit._lightning import L
from lightning_trainingkit.tuning.trials import trial_server
from lightning_trainingkit.tuning.trials.run_trials import run_trials
from lightning_trainingkit.tuning.trials.source import make_source
from lightning_trainingkit.tuning.trials.space import Space
from lightning_trainingkit.tuning.trials.study import Study
from lightning_trainingkit.tuning.trials.trial_job import TrialJob
from tests.toy import ToyModule, toy_loaders


class Data(L.LightningDataModule):
    def train_dataloader(self):
        return toy_loaders()[0]

    def val_dataloader(self):
        return toy_loaders()[1]


class Module(ToyModule):
    """Its epochs take their time, and its process writes its number into the folder of the attempt."""

    def __init__(self, lr: float = 0.1, seconds: float = 0.0):
        super().__init__(lr)
        self.save_hyperparameters()
        self.seconds = seconds

    def on_train_epoch_start(self):
        Path(self.trainer.default_root_dir, f"pid-{self.global_rank}").write_text(str(os.getpid()))
        time.sleep(self.seconds)


class SecondTrial(optuna.pruners.BasePruner):
    """Prunes the second trial after its second epoch."""

    def prune(self, study, trial):
        return trial.number == 1 and trial.last_step == 2


if __name__ == "__main__":
    storage, folder, trials, epochs, seconds, *ranks = sys.argv[1:]
    if not ranks:
        trial_server.start_method = "fork"
    space = Space({"lr": {"low": 1e-3, "high": 1, "log": True}})
    study = Study(storage, "chaos", space, int(trials), retries=9, pruner=SecondTrial() if ranks else None)
    run_trials(
        study,
        make_source(Module(seconds=float(seconds)), Data),
        TrialJob(max_epochs=int(epochs), wandb="disabled"),
        folder=folder,
        devices=int(ranks[0]) if ranks else 1,
        accelerator="cpu",
        heartbeat=0.5,
        grace=3,
    )
    sys.stdout.flush()
    os._exit(0)  # the interpreter's own end takes seconds
