"""Run by torchrun on two gloo ranks: fits with each callback, seeded differently, and writes how the ranks differ."""

import json
import logging
import sys
import warnings
from pathlib import Path

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy
from torch import distributed

from lightning_trainingkit import BestCheckpoint, DropConnect, EarlyStopping, StochasticDepth
from lightning_trainingkit._lightning import L
from lightning_trainingkit.nn.structure.randomness import noise_on
from tests.contract.table import CASES, SCHEDULED, build, module_of
from tests.toy import ToyModule, toy_loaders, toy_trainer


class RankModule(ToyModule):
    """Logs a metric that is not synchronised and differs between ranks."""

    def on_fit_start(self):
        self.at_start = spread(self.state_dict().values())

    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        self.log("val/loss", float((self.global_rank + 1) * (self.current_epoch - 2) ** 2))


class Noises(L.Callback):
    """Keeps the rates of each batch, and the draws that all ranks share."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        noises = [noise for each in pl_module.modules() if (noise := noise_on(each)) is not None]
        self.seen.append([(each.rate, getattr(each, "number", None)) for each in noises])


class OpposedModule(ToyModule):
    """Logs a metric by which the ranks disagree on which epoch was best."""

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", ([1.0, 2.0, 3.0, 4.0], [3.0, 2.0, 1.5, 4.0])[self.global_rank][self.current_epoch])


def scheduled() -> list[L.Callback]:
    """Noises whose rates move. The length of the training is part of a schedule, so that no other case has one."""
    depth = StochasticDepth(0.5, mode="batch", schedule="rise", verbose=False)
    return [depth, DropConnect({"*": 0.2}, schedule="fall", until=0.5, verbose=False)]


def disagreeing(folder: Path) -> dict:
    """Callbacks whose files have, on each rank, another name or another order."""
    top_3 = ModelCheckpoint(folder / "top_3", monitor="val/loss", save_top_k=3)
    named = {"filename": "{epoch}-loss={val/loss:.1f}", "auto_insert_metric_name": False}
    best = BestCheckpoint("val/loss", "min", dirpath=str(folder / "named"), restore=True, **named)
    return {"early_stopping_and_top_3": [EarlyStopping("val/loss"), top_3], "metric_in_the_name": [best]}


def spread(tensors) -> float:
    """Largest difference of this rank's tensors to rank 0's, over all ranks."""
    flat = torch.cat([tensor.detach().double().flatten() for tensor in tensors])
    first = flat.clone()
    distributed.broadcast(first, src=0)
    largest = (flat - first).abs().max()
    distributed.all_reduce(largest, op=distributed.ReduceOp.MAX)
    return largest.item()


def agree(value) -> bool:
    values = [None, None]
    distributed.all_gather_object(values, value)
    return values[0] == values[1]


def main(folder: Path) -> None:
    found = {}
    for case in (*CASES, SCHEDULED):
        callback, *beside = scheduled() if case == SCHEDULED else build(case)
        noises = Noises()
        trainer = toy_trainer(
            callback,
            *beside,
            noises,
            max_epochs=4,
            strategy=DDPStrategy(init_sync=False) if case == "InitOverride" else "ddp",  # it makes ranks equal itself
            devices=2,
            default_root_dir=folder / case,
            use_distributed_sampler=False,
        )
        torch.manual_seed(trainer.global_rank)
        module = type("Module", (RankModule, module_of(case)), {})()
        trainer.fit(module, *toy_loaders())
        found[case] = {
            "at_start": module.at_start,
            "weights": spread(module.state_dict().values()),
            "steps": agree(trainer.global_step),
            "noises": agree(noises.seen),
            "state": agree(repr(callback.state_dict())),
            "summaries": agree(repr(getattr(callback, "summaries", None))),
            "files": [path.name for path in (folder / case).glob("**/*") if path.suffix in (".ckpt", ".pt")],
            "runs": len(list((folder / case).glob("wandb/offline-run-*"))),
        }
    for name, callbacks in disagreeing(folder).items():
        trainer = toy_trainer(
            *callbacks,
            max_epochs=4,
            strategy="ddp",
            devices=2,
            default_root_dir=folder / name,
            use_distributed_sampler=False,
        )
        module = OpposedModule()
        trainer.fit(module, *toy_loaders())
        found[name] = {"weights": spread(module.state_dict().values())}
    if distributed.get_rank() == 0:
        (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
