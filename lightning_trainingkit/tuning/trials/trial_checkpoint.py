"""Keep the last state of a trial, from which a retry resumes."""

import io
import pickle
from pathlib import Path

import torch

from lightning_trainingkit._files import put_in_place, temporary
from lightning_trainingkit._lightning import L, TrainerFn
from lightning_trainingkit.tuning.trials.pruning import ReportToStudy
from lightning_trainingkit.tuning.trials.trial_job import BEST, LAST
from lightning_trainingkit.tuning.trials.wrong_setup import WrongSetupError

__all__ = ["KeepLast"]


class KeepLast(L.callbacks.Checkpoint):
    """Save a checkpoint after each validation that was reported, whole or not at all.

    Args:
        folder: Folder of the attempt.
        report: Says whether the value is the best, and whether the trial ends.
        keep_best: Keep the weights of the best epoch too.
    """

    def __init__(self, folder: Path, report: ReportToStudy, keep_best: bool) -> None:
        self.folder = folder
        self.report = report
        self.keep_best = keep_best

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse a checkpoint of the best epoch that could not be read without running code."""
        if not self.keep_best:
            return
        for name, value in pl_module.hparams.items():
            held = io.BytesIO()
            torch.save(value, held)
            try:
                torch.load(io.BytesIO(held.getvalue()), weights_only=True)
            except pickle.UnpicklingError as error:
                raise WrongSetupError(
                    f"`module` must save plain hyperparameters, got a {type(value).__name__} as `{name}`: its "
                    "checkpoint could run code. Leave it out by `save_hyperparameters(ignore=...)`, and give a "
                    "function at the top of a file that builds the module."
                ) from error

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save; after the report, so that a resumed trial reports again what was not saved."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        if self.keep_best and self.report.improved:
            self._save(trainer, self.folder / BEST, weights_only=True)
        if not self.report.pruned:
            self._save(trainer, self.folder / LAST, weights_only=False)

    def _save(self, trainer: L.Trainer, path: Path, weights_only: bool) -> None:
        trainer.save_checkpoint(temporary(path), weights_only)
        if trainer.is_global_zero:
            put_in_place(path)
        trainer.strategy.barrier()
