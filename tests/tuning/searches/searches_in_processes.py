"""Run by the tests of searches: ``searches_in_processes.py FOLDER`` writes what was found to FOLDER/found.json."""

import json
import sys
from pathlib import Path

import torch

from lightning_trainingkit._lightning import L
from lightning_trainingkit.tuning import SearchResult, coarse_search, load_report, refine_search, seven_steps
from tests.toy import ToyModule, toy_loaders

OPTIONS = {"accelerator": "cpu", "verbose": False}


class Data(L.LightningDataModule):
    def train_dataloader(self):
        return toy_loaders()[0]

    def val_dataloader(self):
        return toy_loaders()[1]


class Module(ToyModule):
    """Its validation loss depends on its arguments alone, and the rate that a trial ends with is seen in it."""

    def __init__(self, lr: float = 0.1, weight_decay: float = 0.0):
        super().__init__(lr)
        self.save_hyperparameters()

    def validation_step(self, batch, batch_idx):
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.log("val/loss", abs(torch.tensor(rate).log10() + 1.5) + 1 / (1 + self.current_epoch))


class NoLoss(ToyModule):
    """Its loss is not finite, so that step 1 fails."""

    def __init__(self, lr: float = 0.1):
        super().__init__(lr)
        self.save_hyperparameters()

    def training_step(self, batch, batch_idx):
        return float("nan") * super().training_step(batch, batch_idx)


def searches(folder):
    coarse = coarse_search(Module, Data, trials=6, epochs=2, output=folder / "coarse", wandb="disabled", **OPTIONS)
    again = coarse_search(Module, Data, trials=6, epochs=2, output=folder / "coarse", wandb="disabled", **OPTIONS)
    refined = refine_search(
        Module, Data, space=coarse, trials=4, epochs=3, output=folder / "refine", wandb="disabled", **OPTIONS
    )
    refused = ""
    try:
        coarse_search(Module, Data, trials=6, epochs=3, output=folder / "coarse", wandb="disabled", **OPTIONS)
    except ValueError as error:
        refused = str(error)
    return {"coarse": seen(coarse), "again": seen(again), "refined": seen(refined), "refused": refused}


def loop(folder):
    options = {"coarse_trials": 4, "coarse_epochs": 1, "round_trials": 4, "round_epochs": 2, "max_trials": 12}
    found = seven_steps(Module, Data, output=folder, name="all", wandb="offline", **options, **OPTIONS)
    loaded = load_report(folder / "study.log", "all", folder)
    failed = seven_steps(NoLoss, Data, output=folder / "bad", wandb="disabled", **options, **OPTIONS)
    return {
        "line": found.line,
        "steps": [each.step for each in found.steps],
        "ended": found.ended,
        "best": found.best,
        "values": found.values,
        "trials": [len(each.trials) for each in found.searches],
        "epochs": found.epochs,
        "command": found.command,
        "loaded": [loaded.line == found.line, loaded.epochs == found.epochs, loaded.best == found.best],
        "failed": [failed.line, [each.step for each in failed.steps], len(failed.searches)],
    }


def seen(found: SearchResult):
    return {
        "line": found.line,
        "best": found.best,
        "value": found.value,
        "params": [each.params for each in found.trials],
        "next": found.next_space.form if found.next_space is not None else None,
        "lines": {each.step: each.line for each in found.lines},
        "report": found.report,
        "epochs": found.epochs,
    }


if __name__ == "__main__":
    root = Path(sys.argv[1])
    found = {"searches": searches(root / "searches"), "loop": loop(root / "loop")}
    (root / "found.json").write_text(json.dumps(found, default=str))
