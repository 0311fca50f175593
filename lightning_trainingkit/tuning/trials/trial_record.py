"""Write to a trial's W&B run which trial it is."""

from typing import Any

from lightning_trainingkit._lightning import L, WandbLogger
from lightning_trainingkit.tuning.trials.pruning import ReportToStudy
from lightning_trainingkit.tuning.trials.trial_job import TrialOrder

__all__ = ["RecordTrial"]


class RecordTrial(L.Callback):
    """Write the study, the ticket and the attempt as ``trial.study`` and so on to the config of the run.

    A hyperparameter may be called ``seed``: it stands beside ``trial.seed``, the seed of the training.

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
        known = {name: getattr(order, name) for name in ("study", "ticket", "attempt", "seed")}
        self._write(trainer, {**order.params, **{f"trial.{name}": value for name, value in known.items()}})

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write whether the trial was pruned."""
        self._write(trainer, {"trial.pruned": self.report.pruned})

    def _write(self, trainer: L.Trainer, values: dict[str, Any]) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_hyperparams(values)
