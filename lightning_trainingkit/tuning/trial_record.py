"""Write to a trial's W&B run which trial it is."""

from typing import Any

from lightning_trainingkit._lightning import L, WandbLogger
from lightning_trainingkit.tuning.pruning import ReportToStudy
from lightning_trainingkit.tuning.trial_job import TrialOrder

__all__ = ["RecordTrial"]


class RecordTrial(L.Callback):
    """Write the study, the ticket, the attempt and the hyperparameters to the config of the run.

    Args:
        order: The attempt.
        report: Knows at the end whether the trial was pruned.
    """

    def __init__(self, order: TrialOrder, report: ReportToStudy) -> None:
        self.order = order
        self.report = report

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write what is known before the training."""
        order = self.order
        known = {"study": order.study, "ticket": order.ticket, "attempt": order.attempt, "seed": order.seed}
        self._write(trainer, {**order.params, **known})

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write whether the trial was pruned."""
        self._write(trainer, {"pruned": self.report.pruned})

    def _write(self, trainer: L.Trainer, values: dict[str, Any]) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_hyperparams(values)
