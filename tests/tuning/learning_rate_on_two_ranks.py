"""Run by torchrun on two gloo ranks with other data: writes the rates that each rank found, and how the ranks end."""

import json
import sys
from pathlib import Path

import torch
from torch import distributed

from lightning_trainingkit._lightning import L
from lightning_trainingkit.tuning import LearningRateTest, find_learning_rate
from tests.toy import ToyModule, toy_loaders, toy_trainer

DDP = {"accelerator": "cpu", "devices": 2, "strategy": "ddp", "use_distributed_sampler": False}


class RankModule(ToyModule):
    """The losses of rank 1 lie higher, and are nan where the rate is high."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        if self.global_rank == 1:
            loss = loss + 1 + (torch.nan if self.net[5].weight.abs().max() > 3 else 0)
        return loss


def searched():
    found = find_learning_rate(RankModule(), toy_loaders()[0], candidates=[0.03, 10.0], trainer_options=DDP)
    return {"rate": found.rate, "iterations": found.iterations, "line": found.line}


def fitted(*callbacks):
    L.seed_everything(0, verbose=False)
    module, trainer = RankModule(), toy_trainer(*callbacks, **DDP)
    torch.manual_seed(distributed.get_rank() if distributed.is_initialized() else 0)
    trainer.fit(module, *toy_loaders())
    return {
        "weights": torch.cat([each.detach().flatten() for each in module.parameters()]).tolist(),
        "rates": [each.rate for each in callbacks],
    }


if __name__ == "__main__":
    mine = {
        "function": searched(),
        "not applied": fitted(LearningRateTest([0.03], verbose=False, apply=False)),
        "without": fitted(),
    }
    everyone = [None, None]
    distributed.all_gather_object(everyone, mine)
    if distributed.get_rank() == 0:
        Path(sys.argv[1], "found.json").write_text(json.dumps(everyone))
