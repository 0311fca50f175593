"""Run alone: trainings that SIGKILL ends in each phase are resumed, under each of seven schedules of the rate."""

import json
import logging
import os
import re
import signal
import sys
import warnings
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.optim import lr_scheduler

from lightning_trainingkit import EpochSeed, TransferLearning
from tests.toy import ToyModule, difference, toy_loaders, toy_trainer

EPOCHS, STEPS = 6, 24
PHASES = [
    {"train": "head"},
    {"train": ["head", "net.1"], "start": 2, "lr_scale": 0.5},
    {"train": "all", "start": 0.66, "lr_scale": 0.2},
]
KILLED = (6, 10, 14, 22)  # at the start of this step: in phase 1, at the beginning of 2, within it, in 3
SCHEDULES = {
    "StepLR": lambda o: (lr_scheduler.StepLR(o, 2, 0.5), "epoch"),
    "LambdaLR": lambda o: (lr_scheduler.LambdaLR(o, [lambda step: 1 / (1 + step / 9)] * 2), "step"),
    "LinearLR": lambda o: (lr_scheduler.LinearLR(o, 1.0, 0.1, total_iters=STEPS), "step"),
    "OneCycleLR": lambda o: (lr_scheduler.OneCycleLR(o, 0.2, total_steps=STEPS), "step"),
    "CosineAnnealingWarmRestarts": lambda o: (lr_scheduler.CosineAnnealingWarmRestarts(o, 7), "step"),
    "ReduceLROnPlateau": lambda o: (lr_scheduler.ReduceLROnPlateau(o, factor=0.3, patience=0), "epoch"),
    "SequentialLR": lambda o: (
        lr_scheduler.SequentialLR(o, [lr_scheduler.LinearLR(o, 0.1), lr_scheduler.ExponentialLR(o, 0.9)], [5]),
        "step",
    ),
}


class Scheduled(ToyModule):
    """Two groups of parameters, and a schedule by name."""

    def __init__(self, name: str):
        super().__init__()
        self.name = name

    def configure_optimizers(self):
        parameters = list(self.parameters())
        groups = [{"params": parameters[::2]}, {"params": parameters[1::2], "weight_decay": 0.01}]
        optimizer = torch.optim.AdamW(groups, lr=0.02)
        scheduler, interval = SCHEDULES[self.name](optimizer)
        return [optimizer], [{"scheduler": scheduler, "interval": interval, "monitor": "val/loss"}]


class Watch(L.Callback):
    """Notes phase and learning rates of each step, and ends the process at one of them."""

    def __init__(self, transfer: TransferLearning, kill: int | None):
        self.transfer, self.kill, self.seen = transfer, kill, {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        self.seen[trainer.global_step] = (self.transfer.phase, self.transfer.learning_rates)


def train(folder: Path, name: str, kill: int | None = None, resume: Path | None = None):
    L.seed_everything(0, verbose=False)
    transfer = TransferLearning(PHASES, warmup_steps=3, verbose=False)
    watch = Watch(transfer, kill)
    save = ModelCheckpoint(folder, filename="{step}", save_top_k=-1, save_on_train_epoch_end=False)
    module = Scheduled(name)
    trainer = toy_trainer(transfer, watch, EpochSeed(0), save, max_epochs=EPOCHS)
    trainer.fit(module, *toy_loaders(), ckpt_path=resume)
    return module, trainer, watch.seen


def steps_saved(folder: Path) -> dict[int, Path]:
    return {int(re.search(r"step=(\d+)", path.name)[1]): path for path in folder.glob("*.ckpt")}


def main(folder: Path) -> None:
    killed = [(name, kill) for name in SCHEDULES for kill in KILLED]
    for name, kill in killed:  # before this process has trained: a fork takes no threads along
        child = os.fork()
        if child == 0:
            train(folder / f"{name}-{kill}", name, kill)
            os._exit(1)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    found = {}
    for name in SCHEDULES:
        module, trainer, seen = train(folder / name, name)
        for kill in KILLED:
            newest = max(steps_saved(folder / f"{name}-{kill}").items())
            again, trainer_too, seen_too = train(folder / f"{name}-{kill}", name, resume=newest[1])
            states = [each.optimizers[0].state_dict()["state"] for each in (trainer, trainer_too)]
            found[f"{name}, killed at {kill}"] = {
                "resumed from": newest[0],
                "phases": sorted({phase + 1 for phase, _ in seen_too.values()}),
                "weights": difference(module.state_dict(), again.state_dict()),
                "optimizer": max(
                    float((states[0][i][key].double() - states[1][i][key].double()).abs().max())
                    for i in states[0]
                    for key in states[0][i]
                ),
                "phase and rates": all(seen_too[step] == seen[step] for step in range(newest[0], STEPS)),
                "steps": trainer_too.global_step,
            }
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
