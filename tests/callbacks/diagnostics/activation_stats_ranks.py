"""Run on two gloo ranks: each has other images, and rank 0 alone calls one of the layers."""

import json
import logging
import sys
import warnings
from dataclasses import asdict
from pathlib import Path

import torch
from torch import distributed, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_trainingkit import ActivationStats
from lightning_trainingkit._lightning import L
from lightning_trainingkit.nn import ActivationRecorder
from tests.callbacks.diagnostics.test_activation_stats import Memory
from tests.toy import toy_trainer


class Module(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.fc, self.relu, self.only_on_rank_0 = nn.Linear(6, 5), nn.ReLU(), nn.Sigmoid()
        nn.init.constant_(self.fc.bias[0], -100)

    def step(self, x, rank):
        y = self.relu(self.fc(x))
        return (self.only_on_rank_0(y) if rank == 0 else y).sum()

    def training_step(self, batch, batch_idx):
        self.seen = batch[0]
        return self.step(batch[0], self.global_rank)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def plain(summaries):
    """All but the number of calls and the bins of the histogram, which ranks merge by their centres."""
    found = {}
    for name, each in summaries.items():
        values = asdict(each) | {"low": each.edges[0], "high": each.edges[-1], "counted": sum(each.counts)}
        found[name] = {key: -1 if value is None else value for key, value in values.items()}
        for key in ("calls", "counts", "edges"):
            del found[name][key]
    return found


def main(folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(48, 6, generator=generator) * torch.linspace(0.1, 2, 48)[:, None]
    torch.manual_seed(0)
    module, callback, memory = Module(), ActivationStats(every_n_steps=1), Memory()
    options = {"strategy": "ddp", "devices": 2, "max_epochs": 1, "limit_train_batches": 2}
    trainer = toy_trainer(callback, logger=memory, default_root_dir=folder, **options)
    trainer.fit(module, DataLoader(TensorDataset(x), 8))

    seen = [torch.empty(8, 6) for _ in range(2)]
    distributed.all_gather(seen, module.seen)
    recorder = ActivationRecorder(module)
    recorder.attach()
    recorder.recording = True
    for rank in range(2):
        module.step(seen[rank], rank)
    found = {
        "logged": len(memory.rows),
        "counts": {name: each.counts for name, each in callback.summaries.items()},
        "summaries": plain(callback.summaries),
        "expected": plain(recorder.summaries()),
    }
    (folder / f"{trainer.global_rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
