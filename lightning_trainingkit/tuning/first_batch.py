"""What the first batch of a trial shows: reasons for a loss that no rate lowers."""

from typing import Any

from lightning_trainingkit._lightning import L
from lightning_trainingkit.callbacks.diagnostics.first_look import rehearse_training
from lightning_trainingkit.nn.diagnostics.finding import Finding
from lightning_trainingkit.nn.diagnostics.observation import Observation
from lightning_trainingkit.tuning.trial import stop

__all__ = ["FirstBatch"]


class FirstBatch(L.Callback):
    """Judge the first batch as HealthReport does, and end the trial.

    Attributes:
        findings: What was found.
    """

    def __init__(self) -> None:
        self.findings: tuple[Finding, ...] = ()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Rehearse the training step."""
        if not self.findings:
            self.findings = tuple(rehearse_training(trainer, pl_module, batch, Observation())[0])

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """End the trial after one batch."""
        stop(trainer)
