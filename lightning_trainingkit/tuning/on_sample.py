"""What the trials of step 2 share: a module on the sample, without dropout, whose training step is watched."""

from typing import Any

from torch import Tensor

from lightning_trainingkit._lightning import L
from lightning_trainingkit.nn.diagnostics.dropout_calls import NoDropout
from lightning_trainingkit.nn.diagnostics.loss_calls import LossCall
from lightning_trainingkit.tuning.regularisation_off import switch_off_dropout
from lightning_trainingkit.tuning.sample import Sample
from lightning_trainingkit.tuning.spied_step import SpiedStep, spy_on
from lightning_trainingkit.tuning.trial import Data

__all__ = ["OnSample"]


class OnSample(L.Callback):
    """Runs a module on the sample, without dropout.

    Args:
        sample: The sample.

    Attributes:
        off: What was switched off, in words.
    """

    looks = False

    def __init__(self, sample: Sample) -> None:
        self.sample = sample
        self.dropout = NoDropout()
        self.off: list[str] = []
        self.module: L.LightningModule | None = None
        self.number = 0  # finished batches
        self.step: SpiedStep | None = None

    def prepare(self, module: L.LightningModule, data: Data) -> Data:
        """Take the dropout off, and watch the training step."""
        self.module = module
        self.off += switch_off_dropout(module)
        data = self.sample.serve(module, data, looks=self.looks)
        self.step = spy_on(module, self.see, around=lambda: self.dropout)
        return data

    def check_labels(self) -> None:
        """Raise LabelsOutOfRangeError if a label was no index of a class."""
        if self.step is not None:
            self.step.check_labels()

    def see(self, loss: Tensor | None, calls: list[LossCall], batch: Any) -> Tensor | None:
        """Get what a step did."""
        raise NotImplementedError
