"""Check that a checkpoint will load without running code."""

import io

import lightning as L
import torch

from lightning_trainingkit.nn.weights.read_checkpoint import explain_failure

__all__ = ["check_hyperparameters"]


def check_hyperparameters(trainer: L.Trainer) -> None:
    """Raise a ValueError if the saved hyperparameters would make checkpoints that only load by running code."""
    for owner in (trainer.lightning_module, trainer.datamodule):  # type: ignore[attr-defined]
        if owner is not None and owner.hparams:
            file = io.BytesIO()
            torch.save(dict(owner.hparams), file)
            file.seek(0)
            with explain_failure(f"hyperparameters of {type(owner).__name__}", file):
                torch.load(file, weights_only=True)
