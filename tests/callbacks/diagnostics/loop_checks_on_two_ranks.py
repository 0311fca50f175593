"""Run by torchrun on two gloo ranks: fits with faults of both ranks, and of one, and writes each rank's findings."""

import json
import logging
import sys
import warnings
from pathlib import Path

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import distributed, nn

from tests.callbacks.diagnostics.checked_fit import Net, fit


class Detached(Net):
    def forward(self, x):
        return self.head(self.middle(self.body(x)).detach())


class TrainInValidation(Net):
    def on_validation_epoch_start(self):
        self.train()


class UsedOnRankOne(Net):
    """A layer that rank 1 alone uses. DDP gives its gradient to both."""

    def __init__(self):
        super().__init__()
        self.extra = nn.Linear(2, 2)

    def forward(self, x):
        logits = super().forward(x)
        return self.extra(logits) if self.global_rank else logits


def main(folder: Path) -> None:
    found = {}
    for kind in (Net, Detached, TrainInValidation, UsedOnRankOne):
        strategy = DDPStrategy(find_unused_parameters=True)
        checked = fit(kind(), epochs=3, strategy=strategy, devices=2, default_root_dir=folder)
        ranks = [None, None]
        distributed.all_gather_object(ranks, [checked.early, checked.final])
        found[kind.__name__] = {
            "equal": ranks[0] == ranks[1],
            "final": [[finding.kind, finding.where] for finding in checked.final],
        }
    if distributed.get_rank() == 0:
        (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
