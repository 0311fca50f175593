"""The training of the diagnostics' benchmark, which switches callbacks on and off within one fit."""

import contextlib
import io
import random
import time
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.loggers import WandbLogger
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from torchvision.models import resnet18

BLOCK, SKIPPED, BATCH = 4, 1, 64
STATES = ("on", "off", "control")
Three = dict[str, list[float]]  # state to the seconds of its steps


class Trained(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = resnet18(num_classes=10).to(memory_format=torch.channels_last)

    def training_step(self, batch, batch_idx):
        loss = cross_entropy(self.net(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-4)


class Batches(Dataset):
    """The same few batches again and again, ready made."""

    def __init__(self, count: int, pixels: int, size: int = BATCH) -> None:
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(4, size, 3, pixels, pixels, generator=generator)
        self.images = [each.contiguous(memory_format=torch.channels_last) for each in images]
        self.targets = torch.randint(0, 10, (4, size), generator=generator)
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int):
        if number >= self.count:
            raise IndexError
        return self.images[number % 4], self.targets[number % 4]


def measure(folder: Path, callbacks: list[L.Callback], args, draw: random.Random) -> list[Three]:
    """Train, with the callbacks and without in turns."""
    switch = Switch(args.threes, draw)
    folder.mkdir(parents=True)
    logger = WandbLogger(save_dir=folder, mode="offline")
    options = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = L.Trainer(
        max_epochs=1,
        callbacks=[switch, *callbacks],
        logger=logger,
        log_every_n_steps=1,
        accelerator="cpu",
        precision=args.precision,
        default_root_dir=folder,
        **options,
    )
    loader = DataLoader(Batches(BLOCK * (3 * args.threes + 2), args.pixels), batch_size=None)
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.fit(Trained(), loader)
    logger.experiment.finish()
    return switch.threes


class Switch(L.Callback):
    """Give the trainer the callbacks or none, by blocks of steps, and note how long each step takes.

    It stands first in either list. Hooks on modules and on the optimizer are taken off and put back.
    """

    def __init__(self, threes: int, draw: random.Random) -> None:
        self.threes: list[Three] = [{state: [] for state in STATES} for _ in range(threes)]
        order = [(state, three) for three in self.threes for state in draw.sample(STATES, 3)]
        self.plan: list[tuple[str, Three | None]] = [("on", None), *order, ("on", None)]

    def on_train_start(self, trainer, pl_module):
        self.callbacks = trainer.callbacks
        self.stash: list[tuple[dict, dict]] = []
        self.is_on = False
        self._switch(True, trainer, pl_module)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        now = time.process_time()
        if batch_idx:
            state, three = self.plan[(batch_idx - 1) // BLOCK]
            if three is not None and (batch_idx - 1) % BLOCK >= SKIPPED:
                three[state].append(now - self.begun)
        # The other callbacks saw the end of the last step: Lightning goes through the list that it has begun with.
        self._switch(self.plan[batch_idx // BLOCK][0] == "on", trainer, pl_module)
        self.begun = time.process_time()

    def on_train_end(self, trainer, pl_module):
        self._switch(True, trainer, pl_module)

    def _switch(self, on: bool, trainer, pl_module) -> None:
        if on == self.is_on:
            return
        self.is_on = on
        trainer.callbacks = self.callbacks if on else [self]
        if on:
            for hooks, kept in self.stash:
                hooks.update(kept)
        else:
            places = [layer._forward_hooks for layer in pl_module.modules()]
            places += [layer._forward_pre_hooks for layer in pl_module.modules()]
            for optimizer in trainer.optimizers:
                places += [optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks]
            self.stash = [(hooks, dict(hooks)) for hooks in places if hooks]
            for hooks, _ in self.stash:
                hooks.clear()
        for callback in self.callbacks:
            if hasattr(callback, "switched"):
                callback.switched(on, trainer, pl_module)
