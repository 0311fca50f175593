"""Report each validation to the study, and stop where the study says so, on all ranks at once."""

import math
from collections.abc import Callable
from typing import Any

import torch

from lightning_trainingkit._lightning import L, TrainerFn
from lightning_trainingkit.callbacks._broadcast import mean_over_ranks
from lightning_trainingkit.functional import _check
from lightning_trainingkit.tuning.trials.wrong_setup import WrongSetupError

__all__ = ["ReportToStudy", "WrongSetupError"]


class ReportToStudy(L.Callback):
    """Report the monitored metric after each validation, and end the training when it is pruned.

    Rank 0 reports and gets the decision, and broadcasts it. All ranks stop after the same batch. A value that is not
    finite is reported too, and ends the training: it has diverged.

    Args:
        monitor: Metric that validation logs.
        mode: Which end is good.
        ask: Called on rank 0 with the number of finished epochs and the value; says whether to stop.

    Attributes:
        best: The best value, None before the first.
        best_epoch: Finished epochs at the best value.
        metrics: All metrics of the best epoch.
        improved: Whether the latest value is the best.
        pruned: Whether the study, or a value that is not finite, ended the training.
        diverged: Whether the latest value is not finite.
    """

    def __init__(self, monitor: str, mode: str, ask: Callable[[int, float], bool]) -> None:
        self.monitor = monitor
        self.mode = mode
        self.best: float | None = None
        self.best_epoch = 0
        self.metrics: dict[str, float] = {}
        self.improved = self.pruned = self.diverged = False
        self._ask = ask

    def state_dict(self) -> dict[str, Any]:
        """The best value, for a resumed attempt."""
        return {"best": self.best, "best_epoch": self.best_epoch, "metrics": self.metrics}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the best value."""
        self.best, self.best_epoch = state_dict["best"], state_dict["best_epoch"]
        self.metrics = state_dict["metrics"]

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report the value of this validation."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._report(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuse a training without validation."""
        every = trainer.check_val_every_n_epoch or 1
        validated = (trainer.current_epoch + 1) % every == 0  # the loader is made by the first validation
        if not trainer.enable_validation or (validated and not sum(_counts(trainer.num_val_batches))):
            raise WrongSetupError(
                f"`monitor` must be logged in validation, got {self.monitor!r} in a training without validation. Write "
                "`val_dataloader` and `validation_step`."
            )

    def _report(self, trainer: L.Trainer) -> None:
        found = trainer.callback_metrics.get(self.monitor)
        if found is None:
            known = ", ".join(_check.nearest(self.monitor, trainer.callback_metrics)) or "none"
            raise WrongSetupError(
                f"`monitor` must be a metric that validation logs, got {self.monitor!r}. There are: {known}."
            )
        value = float(mean_over_ranks(trainer, torch.as_tensor(found).detach()))
        self.diverged = not math.isfinite(value)
        self.improved = not self.diverged and (self.best is None or self._better(value, self.best))
        if self.improved:
            self.best, self.best_epoch = value, trainer.current_epoch + 1
            metrics = {name: float(metric) for name, metric in trainer.callback_metrics.items()}
            self.metrics = {name: metric for name, metric in metrics.items() if math.isfinite(metric)}
        stop = self._ask(trainer.current_epoch + 1, value) if trainer.is_global_zero else False
        stop = bool(trainer.strategy.broadcast(stop)) or self.diverged
        if stop:
            self.pruned = True
            trainer.should_stop = True

    def _better(self, value: float, other: float) -> bool:
        return value < other if self.mode == "min" else value > other


def _counts(batches: Any) -> list[float]:
    return list(batches) if isinstance(batches, list | tuple) else [batches]
