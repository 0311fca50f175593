"""Run by torchrun on two gloo ranks: evaluates an odd number of images in every way, and writes what was counted."""

import json
import logging
import sys
import warnings
from pathlib import Path

import lightning as L
import torch
from torch import distributed
from torch.utils.data import Subset

from lightning_trainingkit import DigitsDataModule, ImageClassifier
from lightning_trainingkit.modules.averaging_report import AveragingReport
from tests.toy import toy_trainer

ODD = {"val_fraction": 0.151}  # 217 images, where the default has 216


class CountingClassifier(ImageClassifier):
    """Counts the images and batches of this rank, and may synchronise in each step."""

    waits = False
    images = 0
    batches = 0

    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        self.count(batch)
        if self.waits:
            self.log("rank", float(self.global_rank), on_step=True, on_epoch=False, sync_dist=True)

    def test_step(self, batch, batch_idx):
        super().test_step(batch, batch_idx)
        self.count(batch)

    def predict_step(self, batch, batch_idx):
        self.count(batch)
        return super().predict_step(batch, batch_idx)

    def count(self, batch):
        if not self.trainer.sanity_checking:
            self.images += len(batch[1])
            self.batches += 1


class PlainDataModule(DigitsDataModule):
    """What every other DataModule does, to show that it can be told from ours."""

    def test_dataloader(self):
        return self._loader(self.test_set)


def everyone(value) -> list:
    values = [None] * distributed.get_world_size() if distributed.is_initialized() else [None]
    if len(values) == 1:
        return [value]
    distributed.all_gather_object(values, value)
    return values


def run(stage: str, data: L.LightningDataModule, checkpoint: Path, waits: bool = False, **options) -> dict:
    ranks = {"strategy": "ddp", "devices": 2} if distributed.is_torchelastic_launched() else {"devices": 1}
    trainer = toy_trainer(max_epochs=1, num_sanity_val_steps=2, **ranks | options)
    module = CountingClassifier.load_from_checkpoint(checkpoint)
    module.waits = waits
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        returned = getattr(trainer, stage)(module, datamodule=data)
    return {
        "metrics": {name: value.item() for name, value in trainer.callback_metrics.items()},
        "images": everyone(module.images),
        "batches": everyone(module.batches),
        "predictions": everyone([p.argmax(1).tolist() for p in returned]) if stage == "predict" else None,
        "warnings": [str(each.message) for each in caught if "Sampler" in str(each.message) or "shuffl" in str(each)],
    }


def too_few(checkpoint: Path) -> list[str]:
    data = DigitsDataModule()
    data.setup()
    data.test_set = Subset(data.test_set, [0])
    try:
        run("test", data, checkpoint)
    except ValueError as error:
        return everyone(str(error))
    return everyone("no error")


def report() -> dict:
    """Numbers of a report of which each rank saw every other sample."""
    generator = torch.Generator().manual_seed(0)
    passes, target = torch.randn(3, 41, 4, generator=generator), torch.randint(4, (41,), generator=generator)
    metric, ranks = AveragingReport(4, 3), int(distributed.is_initialized()) + 1
    own = slice(distributed.get_rank() if ranks == 2 else 0, None, ranks)
    metric.update(passes[:, own], target[own])
    return {name: value.tolist() for name, value in metric.compute().items()}


def evaluate(checkpoint: Path) -> dict:
    return {
        "test": run("test", DigitsDataModule(32), checkpoint),
        "validate": run("validate", DigitsDataModule(32, **ODD), checkpoint),
        "predict": run("predict", DigitsDataModule(32), checkpoint),
        "report": report(),
    }


def main(folder: Path) -> None:
    checkpoint = folder / "trained.ckpt"
    few = {"limit_train_batches": 2}
    found = evaluate(checkpoint) | {
        "workers": run("test", DigitsDataModule(32, num_workers=2), checkpoint),
        "plain": run("test", PlainDataModule(32), checkpoint),
        "switched_off": run("test", DigitsDataModule(32), checkpoint, use_distributed_sampler=False),
        "fit": run("fit", DigitsDataModule(2, **ODD), checkpoint, **few),
        "fit_that_waits": run("fit", DigitsDataModule(108, **ODD), checkpoint, waits=True, **few),
        "overfit": run("fit", DigitsDataModule(32, **ODD), checkpoint, overfit_batches=2),
        "too_few": too_few(checkpoint),
    }
    if distributed.get_rank() == 0:
        (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
