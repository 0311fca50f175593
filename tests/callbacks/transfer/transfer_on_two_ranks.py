"""Run by torchrun on two gloo ranks, or alone: five epochs with two unfreezings, by ours or by BackboneFinetuning."""

import errno
import json
import logging
import os
import sys
import warnings
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import BackboneFinetuning
from torch import distributed, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lightning_trainingkit import TransferLearning
from tests.contract.two_ranks import spread
from tests.toy import difference

PHASES = [{"train": "head"}, {"train": ["head", "backbone.3"], "start": 1}, {"train": "all", "start": 3}]


class Yours(L.LightningModule):
    """A net with LayerNorm and no dropout: its gradients are means over images, however the ranks share them."""

    def __init__(self):
        super().__init__()
        layers = [nn.Flatten(), nn.Linear(64, 32), nn.LayerNorm(32), nn.Linear(32, 32), nn.LayerNorm(32)]
        self.backbone = nn.Sequential(*layers)
        self.head = nn.Linear(32, 10)

    def training_step(self, batch, batch_idx):
        return cross_entropy(self.head(self.backbone(batch[0]).relu()), batch[1])

    def configure_optimizers(self):
        trained = filter(lambda p: p.requires_grad, self.parameters())  # as BackboneFinetuning wants it
        optimizer = torch.optim.SGD(trained, lr=0.1, momentum=0.9, weight_decay=1e-3)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)}


def fit(folder: Path, callback: L.Callback, ranks: int) -> L.LightningModule:
    options = {"strategy": "ddp", "devices": 2} if ranks == 2 else {"devices": 1}
    trainer = L.Trainer(
        accelerator="cpu",
        callbacks=[callback],
        max_epochs=5,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
        **options,
    )
    x = torch.rand(160, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    data = TensorDataset(x, (10 * x.mean((1, 2, 3)) * 7).long() % 10)
    # every batch of 16 is shared out: the same index lists on one process and on two
    batches = [list(range(start + trainer.global_rank, start + 16, ranks)) for start in range(0, 160, 16)]
    torch.manual_seed(trainer.global_rank)
    module = Yours()
    trainer.fit(module, DataLoader(data, batch_sampler=batches))
    return module


def no_room(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def gathered(text: str) -> list[str]:
    texts = [""] * distributed.get_world_size()
    distributed.all_gather_object(texts, text)
    return texts


def main(folder: Path, ranks: int) -> None:
    ours = fit(folder, TransferLearning(PHASES, warmup_steps=5, verbose=False), ranks)
    if ranks == 1:
        torch.save(ours.state_dict(), folder / "one.pt")
        return
    found = {"ours": spread(ours.state_dict().values())}
    if distributed.get_rank() == 0:
        torch.save(ours.state_dict(), folder / "two.pt")
    cached = fit(folder, TransferLearning(PHASES, warmup_steps=5, cache_features="disk", verbose=False), ranks)
    found["ours, cached"] = spread(cached.state_dict().values())
    found["ours, cached, to not cached"] = difference(cached.state_dict(), ours.state_dict())
    theirs = fit(folder, BackboneFinetuning(unfreeze_backbone_at_epoch=1), ranks)
    found["BackboneFinetuning"] = spread(theirs.state_dict().values())
    if distributed.get_rank() == 1:
        os.posix_fallocate = no_room
    try:
        fit(folder, TransferLearning(PHASES, cache_features="disk", verbose=False), ranks)
    except ValueError as error:
        said = str(error)
    found["without room"] = gathered(said)
    if distributed.get_rank() == 0:
        (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), int(sys.argv[2]))
