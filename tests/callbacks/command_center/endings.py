"""Two fits with a page, a test after each, and an end of the process: python endings.py FOLDER END."""

import os
import signal
import sys
import time

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch.utils.data import DataLoader, TensorDataset

from lightning_trainingkit import CommandCenter

FOLDER, END = [*sys.argv[1:], "", ""][:2]  # none where pytest looks for doctests


def end():
    if "exit" in END:
        sys.exit(3)
    if "error" in END:
        raise RuntimeError("raised by the script")
    if "SIG" in END:
        os.kill(os.getpid(), getattr(signal, END.split()[0]))
        if "in" not in END:
            time.sleep(60)


class Module(L.LightningModule):
    def __init__(self, last):
        super().__init__()
        self.net, self.last = torch.nn.Linear(2, 1), last

    def training_step(self, batch, batch_idx):
        if self.last and "in the fit" in END:
            end()
        return self.net(batch[0]).square().mean()

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.net(batch[0]).square().mean(), on_step=True, on_epoch=True)

    def test_step(self, batch, batch_idx):
        self.log(f"test_acc_of_{self.last}", 0.7)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


if __name__ == "__main__":
    loader = DataLoader(TensorDataset(torch.ones(4, 2)), batch_size=4)
    for last in (False, True):
        quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
        ranks = {"strategy": END, "devices": 2} if "ddp" in END else {"accelerator": "cpu"}
        callbacks = [CommandCenter(name=f"last={last}", page="page.html"), EarlyStopping("val_loss")]
        trainer = L.Trainer(max_epochs=1, default_root_dir=FOLDER, logger=False, callbacks=callbacks, **quiet, **ranks)
        module = Module(last)
        trainer.fit(module, loader, loader)
        if END == "a child" and last:
            if (child := os.fork()) == 0:
                sys.exit()
            os.waitpid(child, 0)
        if "ddp" not in END:
            trainer.test(module, loader, verbose=False)
    os.chdir("/")  # the page stays where it was asked for
    end()
