"""A training that SIGKILL ends, in an epoch or in a file, ends like an unbroken one when it is resumed."""

import signal

import pytest
import torch

from tests import process
from tests.toy import difference

TRAIN = """
import sys
import lightning as L, torch
from lightning_trainingkit import BestCheckpoint, EarlyStopping, EpochSeed
from tests.toy import ToyModule, toy_loaders, toy_trainer

class Steps(ToyModule):
    def on_train_batch_start(self, *args):
        if self.global_step == kill_at:
            kill()
        steps.append(self.global_step)

L.seed_everything(0)
module, steps = Steps(), []
save = BestCheckpoint("val/loss", "min", dirpath="checkpoints", save_last=True, restore=True)
trainer = toy_trainer(EarlyStopping("val/loss", patience=9, restore_best=False), save, EpochSeed(1), max_epochs=4)
trainer.fit(module, *toy_loaders(), ckpt_path="checkpoints/last.ckpt" if sys.argv[1:] else None)
torch.save({"weights": module.state_dict(), "steps": steps}, "end.pt")
"""
NONE = "kill_at = None\n"
KILL = f"{NONE}import os, signal\nkill = lambda: os.kill(os.getpid(), signal.SIGKILL)\n"
WHILE_WRITING = f"""{KILL}
import pathlib
replace, written = pathlib.Path.replace, []
def half(self, target):
    if pathlib.Path(target).name.startswith("{{name}}") and written.append(target) is None and len(written) == 2:
        os.truncate(self, self.stat().st_size // 2)
        kill()
    return replace(self, target)
pathlib.Path.replace = half
"""
FAULTS = {
    "in mid-epoch": f"{KILL}kill_at = 10\n",
    "writing the best": WHILE_WRITING.replace("{name}", "epoch="),
    "writing the last": WHILE_WRITING.replace("{name}", "last"),
    "writing the manifest": WHILE_WRITING.replace("{name}", "best.json"),
    "between best and last": f"""{KILL}
from lightning_trainingkit import BestCheckpoint
save_last = BestCheckpoint._save_last_checkpoint
def before(self, trainer, *args):
    kill() if trainer.current_epoch == 2 else save_last(self, trainer, *args)
BestCheckpoint._save_last_checkpoint = before
""",
}


def end(folder):
    return torch.load(folder / "end.pt", weights_only=True)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    process.run("-c", NONE + TRAIN, folder=folder)
    assert end(folder)["steps"] == [*range(16)]
    return end(folder)["weights"]


@pytest.mark.parametrize("fault", FAULTS)
def test_killed_and_resumed_it_ends_like_an_unbroken_run(unbroken, tmp_path, fault):
    killed = process.run("-c", FAULTS[fault] + TRAIN, folder=tmp_path, ok=False)
    assert killed.returncode == -signal.SIGKILL
    process.run("-c", NONE + TRAIN, "resume", folder=tmp_path)
    first = end(tmp_path)["steps"][0]
    assert 0 < first < 16
    assert end(tmp_path)["steps"] == [*range(first, 16)]
    assert difference(end(tmp_path)["weights"], unbroken) == 0
    assert not list(tmp_path.glob("**/*.tmp"))
