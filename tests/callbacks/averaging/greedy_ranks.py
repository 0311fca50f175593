"""Run by torchrun on two gloo ranks: chooses weights of an ensemble, with unequal shares of the data."""

import json
import logging
import sys
import warnings
from pathlib import Path

import torch
from torch import distributed
from torch.utils.data import DataLoader, Subset

from lightning_trainingkit import EnsembleAverage
from tests.callbacks.averaging.test_ensemble_average import data, good_and_bad, make
from tests.toy import toy_trainer


def main(folder: Path) -> None:
    callback = EnsembleAverage(good_and_bad(), target="net", weights="greedy")
    trainer = toy_trainer(callback, strategy="ddp", devices=2, use_distributed_sampler=False)
    share = range(13) if trainer.global_rank == 0 else range(13, 21)
    trainer.validate(make(0), DataLoader(Subset(data(), share), 8), verbose=False)
    found = [None, None]
    distributed.all_gather_object(found, callback.selected_weights)
    if trainer.global_rank == 0:
        (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
