"""Give a resumed training the random numbers of an unbroken training."""

import random

import numpy as np
import torch

from lightning_trainingkit._lightning import L, refuse_other_package
from lightning_trainingkit.callbacks._lightning import refuse_twice
from lightning_trainingkit.functional import _check
from lightning_trainingkit.nn.weights.trained import mark_trained

__all__ = ["EpochSeed"]


class EpochSeed(L.Callback):
    """Seed torch, numpy and random from (seed, epoch, rank) at the start of each training epoch.

    Lightning's checkpoints hold no random state. With this callback a resumed run ends with the weights of an unbroken
    run, bit for bit, under these conditions:

    - **Checkpoint**: it was saved at the end of the validation that ends an epoch (``BestCheckpoint``'s default).
    - **Devices**: one device.
    - **Data**: ``shuffle=True`` and dropout are fine. ``DataLoader(persistent_workers=True)`` is not: its workers are
      not seeded again in each epoch.

    In other cases the resume is an ordinary one. Ranks draw different numbers. Only the generators' states change.

    Args:
        seed: Any non-negative integer. Runs with different seeds have different random numbers in every epoch.

    Raises:
        ValueError: If ``seed`` is negative or no integer.

    Example:
        >>> import lightning as L
        >>> trainer = L.Trainer(callbacks=[EpochSeed(1)], logger=False, enable_checkpointing=False)

    References:
        numpy's ``SeedSequence`` mixes the three numbers (O'Neill, "Developing a seed_seq alternative", 2015).
    """

    def __init__(self, seed: int) -> None:
        self.seed = _check.integer("seed", seed, "Any seed, such as 0, will do.", least=0)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse a second EpochSeed, whose seed would overrule the first."""
        refuse_other_package(self, trainer)
        refuse_twice(trainer, self, "Keep one.")

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Reseed every generator of this process."""
        words = np.random.SeedSequence((self.seed, trainer.current_epoch, trainer.global_rank)).generate_state(3)
        # Without a device `torch.manual_seed` also formats the stack three times, to seed devices that may come later.
        seed = torch.manual_seed if torch.accelerator.is_available() else torch.default_generator.manual_seed
        seed(int(words[0]))
        np.random.seed(words[1])  # noqa: NPY002 - the global generator is what the user's code draws from
        random.seed(int(words[2]))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note that the module is trained, for ``InitOverride``, which refuses to draw trained layers."""
        mark_trained(pl_module)
