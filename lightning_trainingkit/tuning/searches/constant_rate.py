"""Train at a constant learning rate: trials of a search are short, and a schedule would end them at a low rate."""

from typing import Any

from torch.optim.lr_scheduler import ConstantLR

from lightning_trainingkit._lightning import L

__all__ = ["ConstantRate"]


class ConstantRate(L.Callback):
    """Replace each learning-rate schedule by one that keeps the rate.

    The rate is the one from which the schedule decays, or the largest one of OneCycleLR and CyclicLR.
    """

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Replace the schedules. They are restored from a checkpoint after this hook."""
        for config in trainer.strategy.lr_scheduler_configs:
            scheduler: Any = config.scheduler
            optimizer = scheduler.optimizer
            largest = getattr(scheduler, "max_lrs", [None] * len(optimizer.param_groups))
            for group, most in zip(optimizer.param_groups, largest, strict=True):
                rate = most if most is not None else group.get("max_lr", group.get("initial_lr", group["lr"]))
                group["lr"] = group["initial_lr"] = float(rate)
            config.scheduler = ConstantLR(optimizer, factor=1.0, total_iters=1)
            config.interval, config.frequency = "epoch", 1
            config.reduce_on_plateau, config.monitor = False, None
