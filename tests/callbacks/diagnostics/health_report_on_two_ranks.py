"""Run by torchrun on two gloo ranks with other data each: fits, healthy and not, and writes each rank's findings."""

import json
import logging
import sys
import warnings
from pathlib import Path

import torch
from torch import distributed, nn
from torch.nn import functional as F

from lightning_trainingkit import HealthReport
from tests.callbacks.diagnostics.test_health_report import Stack
from tests.toy import ToyModule, toy_loaders, toy_trainer


class Gathers(ToyModule):
    """Gathers over ranks in each step."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss + 0 * self.all_gather(loss, sync_grads=True).sum()


class NanOnRankOne(ToyModule):
    """Its loss is NaN on rank 1 alone, from step 5 on."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * float("nan") if self.global_rank and self.global_step >= 5 else loss


class SignOnRankOne(ToyModule):
    """Its rehearsal shows other things on each rank."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return -loss if self.global_rank and not self.global_step else loss


class NotCopiedOnRankOne(ToyModule):
    """Its rehearsal is not possible on rank 1."""

    def on_fit_start(self):
        if self.global_rank:
            self.lock = (number for number in range(3))


class ByRank(ToyModule):
    """A regression whose targets have another variance on each rank, with a rate that is far too high."""

    def training_step(self, batch, batch_idx):
        return F.mse_loss(self(batch[0])[:, 0], batch[0].mean((1, 2, 3)) * 10**self.global_rank)

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=3.0)


CASES = {
    "healthy": (lambda: Stack(nn.ReLU, 2), 40),
    "sigmoids": (Stack, 40),
    "gathers": (Gathers, 5),
    "nan on rank 1": (NanOnRankOne, 40),
    "sign on rank 1": (SignOnRankOne, 5),
    "not copied on rank 1": (NotCopiedOnRankOne, 5),
    "regression": (ByRank, 40),
}


def main(folder: Path) -> None:
    found = {}
    for case, (kind, epochs) in CASES.items():
        torch.manual_seed(0)
        module = kind()
        torch.manual_seed(distributed.get_rank() if distributed.is_initialized() else 0)
        report = HealthReport(every_n_steps=4, stop=True, verbose=False)
        trainer = toy_trainer(
            report,
            max_epochs=epochs,
            strategy="ddp",
            devices=2,
            default_root_dir=folder,
            use_distributed_sampler=True,
        )
        loaders = toy_loaders(4)
        trainer.fit(module, *loaders[: 1 if isinstance(module, Stack) else 2])
        ranks = [None, None]
        mine = [[str(each) for each in report.findings], trainer.global_step, report.observation.losses.first]
        distributed.all_gather_object(ranks, mine)
        found[case] = {
            "equal": repr(ranks[0]) == repr(ranks[1]),
            "kinds": [each.kind for each in report.findings if each.level != "advice"],
            "steps": trainer.global_step,
        }
    if distributed.get_rank() == 0:
        (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
