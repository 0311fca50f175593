"""Run by the tests of trials: scenarios with real processes of trials, forked from this small process.

``python trials_in_processes.py FOLDER SCENARIO ...`` writes what each found to FOLDER/found.json.
"""

import contextlib
import io
import json
import os
import signal
import sys
import threading
import time
from functools import partial
from importlib import import_module
from pathlib import Path

import torch

from lightning_trainingkit._lightning import L, rank_zero_only
from lightning_trainingkit.tuning.trials import trial_server
from lightning_trainingkit.tuning.trials.run_trials import run_trials
from lightning_trainingkit.tuning.trials.source import make_source
from lightning_trainingkit.tuning.trials.space import Space
from lightning_trainingkit.tuning.trials.study import Study
from lightning_trainingkit.tuning.trials.trial_job import TrialJob
from tests.toy import ToyModule, toy_loaders

RATES = Space({"lr": [0.1, 0.01]})


class Data(L.LightningDataModule):
    def train_dataloader(self):
        return toy_loaders()[0]

    def val_dataloader(self):
        return toy_loaders()[1]


class Module(ToyModule):
    """Does at the start of an epoch what its argument says."""

    def __init__(self, lr: float = 0.1, what: str = "", seconds: float = 0.0):
        super().__init__(lr)
        self.save_hyperparameters()
        self.what, self.seconds = what, seconds

    def on_train_epoch_start(self):
        time.sleep(self.seconds)
        first = "attempt-0" in self.trainer.default_root_dir
        if self.what == "raise" or (self.what == "raise high" and self.hparams.lr == 0.1):
            raise ArithmeticError("nothing works")
        if self.what in ("die", "die once") and self.current_epoch == 2 and (first or self.what == "die"):
            sys.stdout.write("my last words\n")
            os.kill(os.getpid(), signal.SIGKILL)

    def on_train_end(self):
        if self.what == "die late" and "attempt-0" in self.trainer.default_root_dir:
            os.kill(os.getpid(), signal.SIGKILL)

    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        if self.what == "diverge":
            self.log("val/loss", torch.tensor(float("nan")))


def ran(study, job=None, **arguments):
    """What ``run_trials`` prints, and the error that it raises."""
    what = arguments.pop("what", "")
    source = make_source(Module(what=what, seconds=arguments.pop("seconds", 0.0)), Data)
    printed = io.StringIO()
    error = ""
    random_state = torch.get_rng_state()
    with contextlib.redirect_stdout(printed):
        try:
            run_trials(study, source, job or TrialJob(max_epochs=3, wandb="disabled"), folder=study.name, **arguments)
        except (Exception, KeyboardInterrupt) as raised:
            error = f"{type(raised).__name__}: {raised}"
    assert torch.equal(random_state, torch.get_rng_state())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return {"printed": printed.getvalue(), "error": error, "counts": study.counts(), "results": shown(study)}


def shown(study):
    return [vars(each) for each in study.results()]


def plain():
    # Lightning takes these for a cluster's, or for a rank's.
    os.environ |= {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "mine", "WORLD_SIZE": "4", "RANK": "2"}
    found = ran(Study("plain/study.log", "plain", RATES, 3, seed=1), jobs=2)
    for name in ("SLURM_NTASKS", "SLURM_JOB_NAME", "WORLD_SIZE", "RANK"):
        del os.environ[name]
    return found | {"files": sorted(path.name for path in Path("plain").rglob("*") if path.is_file())}


def some_raise():
    return ran(Study(None, "some", RATES, 3, points=[{"lr": 0.1}, {"lr": 0.01}, {"lr": 0.01}]), what="raise high")


def all_raise():
    return ran(Study(None, "all", RATES, 9), what="raise")


def no_monitor():
    study = Study(None, "monitor", RATES, 3)
    wrong = ran(study, TrialJob(max_epochs=3, monitor="val_acc", wandb="disabled"))
    return wrong | {"later": ran(study)["counts"]}


def dies_once():
    whole = ran(Study(None, "whole", RATES, 1))
    return ran(Study(None, "once", RATES, 1), what="die once") | {"whole": whole["results"]}


def dies_late():
    return ran(Study(None, "late", RATES, 1), TrialJob(max_epochs=3, wandb="disabled", keep_best=True), what="die late")


def always_dies():
    return ran(Study(None, "always", RATES, 1, retries=1), what="die")


def diverges():
    return ran(Study(None, "diverges", RATES, 1), what="diverge")


def stops():
    return ran(Study(None, "stops", RATES, 5), stop=lambda study: study.counts()["completed"] >= 2)


def interrupted(job=None):
    study = Study(None, "interrupted", RATES, 2)
    checkpoint = Path("interrupted/trial-0000/attempt-0/last.ckpt")

    def press():
        while not checkpoint.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press).start()
    first = ran(study, job, seconds=0.3)
    return {"first": first, "second": ran(study, job)}


def recorded():
    job = TrialJob(max_epochs=3, wandb="offline", keep_best=True)
    rank_zero_only.rank = 3  # as Lightning reads SLURM_PROCID at its import: trials have ranks of their own
    ran(Study(None, "raises", RATES, 1), job, what="raise")
    return interrupted(job)


if __name__ == "__main__":
    trial_server.start_method = "fork"
    folder, *names = sys.argv[1:]
    if "recorded" in names:
        import_module("wandb.sdk.launch")  # once for all trials, as the server does
    os.chdir(folder)
    scenarios = {name: value for name, value in globals().items() if callable(value)}
    Path("found.json").write_text(json.dumps({name: partial(scenarios[name])() for name in names}))
    os._exit(0)  # the interpreter's own end takes seconds
