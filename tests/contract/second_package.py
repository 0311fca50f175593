"""Run alone: each callback in a Trainer of ``pytorch_lightning``: a fit, a resume and a test in one process."""

import logging
import sys
import warnings
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint

from lightning_trainingkit import ImageClassifier
from tests.contract.table import CASES, build, module_of, write_members
from tests.toy import ToyModule, toy_loaders, toy_trainer

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    write_members(Path())
    assert issubclass(ToyModule, pl.LightningModule)
    assert issubclass(ImageClassifier, pl.LightningModule)
    for case in CASES:
        module, options = module_of(case)(), {"default_root_dir": case}
        save = ModelCheckpoint(f"{case}/neutral", save_top_k=-1, save_on_train_epoch_end=False)
        first = toy_trainer(*build(case), save, **options)
        first.fit(module, *toy_loaders())
        callbacks = build(case)
        assert all(isinstance(each, pl.Callback) for each in callbacks)
        second = toy_trainer(*callbacks, save, max_epochs=3, **options)
        second.fit(module_of(case)(), *toy_loaders(), ckpt_path=save.best_model_path)
        assert (first.global_step, second.global_step) == (8, 12)
        second.test(module, toy_loaders()[1], ckpt_path="best", verbose=False)
        sys.stdout.write(f"{case}\n")
    assert "lightning.pytorch" not in sys.modules
