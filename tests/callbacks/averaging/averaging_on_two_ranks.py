"""Run by torchrun on two gloo ranks: averages in a fit's validation and in a test, with data that differ by rank."""

import json
import logging
import sys
import warnings
from pathlib import Path

import torch
from torch import distributed, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lightning_trainingkit.callbacks.averaging.augmentation import TestTimeAugmentation
from lightning_trainingkit.functional.views import make_views
from tests.toy import ToyModule, toy_loaders, toy_trainer

TEN = [
    [
        "identity",
        "hflip",
        "vflip",
        "rot90",
        "rot180",
        "rot270",
        *[f"shift({dx}, {dy})" for dx, dy in ((1, 0), (0, 1), (1, 1), (-1, 0))],
    ]
]


class RankModule(ToyModule):
    def __init__(self):
        torch.manual_seed(0)
        super().__init__()
        self.net[5].weight.data.mul_(30)
        self.unused = nn.Linear(1, 1).requires_grad_(False)
        self.outputs, self.passes = [], []

    def validation_step(self, batch, batch_idx):
        calls = []
        hook = self.net[0].register_forward_pre_hook(lambda *_: calls.append(1))
        self.log("val/loss", cross_entropy(self(batch[0]), batch[1]), sync_dist=True)
        hook.remove()
        self.passes.append(len(calls))

    def test_step(self, batch, batch_idx):
        self.outputs.append(self(batch[0]))
        self.log("test/acc", (self.outputs[-1].argmax(1) == batch[1]).float().mean(), sync_dist=True)


def loader(rank: int) -> DataLoader:
    """Not as many batches on each rank, and harder ones on one of them."""
    x = (0.1 if rank else 3.0) * torch.randn(40 - 24 * rank, 1, 4, 4, generator=torch.Generator().manual_seed(rank))
    return DataLoader(TensorDataset(x, (x.mean((1, 2, 3)) > 0).long()), 8)


def main(folder: Path) -> None:
    options = {"strategy": "ddp", "devices": 2, "use_distributed_sampler": False, "default_root_dir": folder}
    module = RankModule()
    trainer = toy_trainer(
        TestTimeAugmentation("flip", stages="validate"), max_epochs=1, num_sanity_val_steps=0, **options
    )
    trainer.fit(module, *toy_loaders())
    rank = trainer.global_rank
    left = vars(module).get("forward")

    callback = TestTimeAugmentation(TEN, early_exit=True)
    calls = []
    module.net[0].register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    trainer = toy_trainer(callback, **options)
    (logged,) = trainer.test(module, loader(rank), verbose=False)
    put_back = vars(module).get("forward") is left
    made, found = sum(calls), torch.cat(module.outputs)

    full = TestTimeAugmentation(TEN)
    module.outputs = []
    toy_trainer(full, **options).test(module, loader(rank), verbose=False)
    with torch.no_grad():
        x, net = loader(rank).dataset.tensors[0], module.net.eval()
        expected = sum(net(view(x)).softmax(1) for view in make_views(TEN)).div(10)
    error = (torch.cat(module.outputs).exp() - expected).abs().max().item()

    not_called = "nothing was raised"
    try:
        toy_trainer(TestTimeAugmentation("flip", target="unused"), **options).test(module, loader(rank), verbose=False)
    except ValueError as raised:
        not_called = str(raised)
    report = {
        "left_by_ddp": left is not None,
        "put_back": put_back,
        "validated": module.passes,
        "logged": logged,
        "passes": callback.passes_per_sample,
        "made": made,
        "samples": len(found),
        "error": error,
        "not_called": not_called,
    }
    (folder / f"{rank}.json").write_text(json.dumps(report))
    distributed.barrier()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
