"""Write to a trial's W&B run which trial it is."""

from typing import Any

from lightning_trainingkit._lightning import L, WandbLogger
from lightning_trainingkit.tuning.trials.pruning import ReportToStudy
from lightning_trainingkit.tuning.trials.trial_job import TrialOrder

__all__ = ["RecordTrial"]


class RecordTrial(L.Callback):
    """Write the study, the ticket and the attempt as ``trial.study`` and so on to the config of the run.

    A hyperparameter may be called ``seed``: it stands beside ``trial.seed``, the seed of the training. Short epochs
    are logged twice at least, so that their curves can be read.

    Args:
        order: The attempt.
        report: Knows at the end whether the trial was pruned.
        short_epochs: Whether to log more often in short epochs than Lightning's every 50th step.
    """

    def __init__(self, order: TrialOrder, report: ReportToStudy, short_epochs: bool = False) -> None:
        self.order = order
        self.report = report
        self.short_epochs = short_epochs

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log more often where an epoch has few steps."""
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        steps = trainer.num_training_batches / trainer.accumulate_grad_batches
        if self.short_epochs and steps < 2 * every:
            trainer.log_every_n_steps = max(1, int(steps / 2))  # type: ignore[attr-defined]

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write what is known before the training."""
        order = self.order
        known = {name: getattr(order, name) for name in ("study", "ticket", "attempt", "seed")}
        self._write(trainer, {**order.params, **{f"trial.{name}": value for name, value in known.items()}})

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write whether the trial was pruned."""
        self._write(trainer, {"trial.pruned": self.report.pruned})

    def _write(self, trainer: L.Trainer, values: dict[str, Any]) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_hyperparams(values)
