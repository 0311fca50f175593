"""Run by the tests of folds and members: scenarios with real processes of trials, forked from this small process.

``python folds_in_processes.py FOLDER SCENARIO ...`` writes what each found to FOLDER/found.json.
"""

import contextlib
import io
import json
import os
import random
import signal
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import torch
from torch.utils.data import DataLoader, TensorDataset

import lightning_trainingkit as kit
from lightning_trainingkit._lightning import L
from lightning_trainingkit.tuning import cross_validate, train_members
from lightning_trainingkit.tuning.trials import trial_server
from tests.toy import ToyModule, difference, toy_data, toy_trainer

NUMBERS = torch.arange(24)


class Numbers(L.LightningDataModule):
    """Examples 0 to 23 to train on, and other ones to validate."""

    def train_dataloader(self):
        return DataLoader(TensorDataset(NUMBERS, NUMBERS % 2), 4, shuffle=True)

    def val_dataloader(self):
        return DataLoader(TensorDataset(NUMBERS + 1000, NUMBERS % 2), 4)


class Adds(L.LightningModule):
    """Validates to the sum of the examples, plus its rate; refuses one that it has trained on or should not see."""

    def __init__(self, lr: float = 0.0, what: str = ""):
        super().__init__()
        self.save_hyperparameters()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.trained, self.seen = set(), []

    def training_step(self, batch, batch_idx):
        self.trained |= set(batch[0].tolist())
        if self.hparams.what == "raise" or self.hparams.lr == 9:
            raise ArithmeticError("nothing works")
        return self.weight**2

    def validation_step(self, batch, batch_idx):
        self.seen += batch[0].tolist()

    def on_validation_epoch_end(self):
        assert self.trained.isdisjoint(self.seen)
        assert len(self.trained) + len(self.seen) == len(NUMBERS)
        self.log("val/sum", float(sum(self.seen)) + 1000 * self.hparams.lr)
        self.seen.clear()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Toy(L.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(toy_data(), 8, shuffle=True)

    def val_dataloader(self):
        return DataLoader(toy_data(), 16)

    test_dataloader = val_dataloader


class Scripted(ToyModule):
    """Its best epoch is the first; its process dies after the second, once."""

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", float(self.current_epoch))

    def on_train_epoch_start(self):
        if self.current_epoch == 2 and "attempt-0" in self.trainer.default_root_dir:
            os.kill(os.getpid(), signal.SIGKILL)


def validated(module, data, name, **options):
    """What ``cross_validate`` finds, or the error that it raises."""
    states = torch.get_rng_state(), random.getstate()
    options = {"max_epochs": 2, "monitor": "val/sum", "accelerator": "cpu", "wandb": "disabled"} | options
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            found = cross_validate(module, data, name=name, **{"folder": name} | options)
    except (RuntimeError, ValueError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    return json.loads(json.dumps(asdict(found) | {"checkpoints": found.checkpoints, "rows": found.rows()}))


def plain():
    options = {"folds": 2, "repeats": 2}
    first = validated(Adds(), Numbers, "plain", **options)
    files = {path: path.stat().st_mtime_ns for path in Path("plain").rglob("*.ckpt")}
    again = validated(Adds(), Numbers, "plain", **options)
    assert files == {path: path.stat().st_mtime_ns for path in Path("plain").rglob("*.ckpt")}
    others = [{"folds": 3}, {"folds": 2, "repeats": 2, "seed": 1}, options | {"max_epochs": 3}]
    return {"first": first, "again": again, "refused": [validated(Adds(), Numbers, "plain", **each) for each in others]}


def shared():
    """A folder of another study."""
    return validated(Adds(), Numbers, "other", folder="plain", folds=2)


def pruned():
    rates = [{"lr": 0.0}, {"lr": 9.0}, {"lr": 1.0}]
    return validated(Adds, Numbers, "pruned", folds=5, configurations=rates, prune=True, max_epochs=1)


def raises():
    return validated(Adds(what="raise"), Numbers, "raises", folds=3)


def ensemble():
    options = {"folds": 2, "monitor": "val/acc", "mode": "max", "wandb": "offline"}
    found = validated(ToyModule(), Toy(), "ensemble", configurations=[{"lr": 0.1}], **options)
    module = ToyModule()
    average = kit.EnsembleAverage(found["checkpoints"], target="net")
    toy_trainer(average).test(module, Toy(), verbose=False)
    return found


def members():
    options = {"max_epochs": 2, "accelerator": "cpu", "name": "toys", "verbose": False, "wandb": "offline"}
    folders = train_members(ToyModule(), Toy(), 2, folder="members", seed=5, **options)
    files = {path: path.stat().st_mtime_ns for path in Path("members").rglob("*.ckpt")}
    more = train_members(ToyModule(), Toy(), 3, folder="members", seed=5, **options)
    assert all(path.stat().st_mtime_ns == time for path, time in files.items())

    L.seed_everything(6, verbose=False)
    alone = ToyModule()
    best = kit.BestCheckpoint("val/loss", "min", dirpath="alone")
    toy_trainer(kit.EpochSeed(6), best).fit(alone, Toy())
    kit.load_best(alone, "alone")
    member = ToyModule()
    kit.load_best(member, more[1])
    error = ""
    try:
        train_members(ToyModule(), Toy(), 3, folder="members", seed=4, **options)
    except ValueError as raised:
        error = str(raised)
    difference_ = difference(alone.state_dict(), member.state_dict())
    return {"first": folders, "more": more, "difference": difference_, "refused": error}


def dies():
    options = {"max_epochs": 4, "accelerator": "cpu", "name": "dies", "verbose": False, "wandb": "disabled"}
    (folder,) = train_members(Scripted(), Toy(), 1, folder="dies", **options)
    files = sorted(str(path) for path in Path("dies").rglob("*.ckpt"))
    return {"best": json.loads(Path(folder, "best.json").read_text()), "files": files}


def race(name="race"):
    """One of two workers of the same study."""
    rates = [{"lr": float(rate)} for rate in range(3)]
    return validated(Adds, Numbers, name, folds=5, configurations=rates, prune=True, max_epochs=1)


if __name__ == "__main__":
    trial_server.start_method = "fork"
    folder, *names = sys.argv[1:]
    import_module("wandb.sdk.launch")  # once for all trials, as the server does
    os.chdir(folder)
    found = {name: globals()[name]() for name in names}
    Path(f"found-{os.getpid()}.json").write_text(json.dumps(found))
