"""Which checks of a metric a resumed run does without, because Lightning leaves them out."""

import lightning as L
from lightning.pytorch.utilities import rank_zero_warn

from lightning_trainingkit.callbacks._lightning import validation_follows

__all__ = ["LostChecks"]

_WHY = {
    "validation": "since Lightning leaves out the validation that was due when the checkpoint was saved. Save at the "
    "end of validations or epochs.",
    "training": "since `training_step` logs it and the checkpoint was saved before the epoch's end. Use "
    "`save_on_train_epoch_end=True`.",
}


class LostChecks:
    """Knows what was still to come of a validation or an epoch when a checkpoint was saved.

    Lightning resumes with the next batch: a validation that was due before it never runs, and an epoch ends without
    the metrics that its first steps logged, or, after its last step, does not end at all.
    """

    def __init__(self) -> None:
        self.ahead: dict[str, int] = {}
        """The epoch whose validation, and the one whose end, come next; a checkpoint holds them."""
        self._lost: dict[str, int] = {}

    def load(self, ahead: dict[str, int]) -> None:
        """Go on from a checkpoint."""
        self.ahead, self._lost = dict(ahead), dict(ahead)

    def batch_ended(self, trainer: L.Trainer) -> None:
        """Note what follows a batch."""
        self.ahead = dict.fromkeys(["training", "validation"][: 1 + validation_follows(trainer)], trainer.current_epoch)

    def ended(self, part: str) -> None:
        """Note that a validation, or an epoch of training, has ended."""
        self.ahead.pop(part, None)

    def tell(self, part: str, trainer: L.Trainer, monitor: str) -> bool:
        """Warn of a check that was lost, now that a validation, or an epoch of training, has logged the metric.

        Returns:
            Whether it is the epoch that ends.
        """
        epoch = self._lost.pop(part, None)
        if epoch is not None:
            rank_zero_warn(f"TransferLearning: {monitor} of epoch {epoch} is lost, {_WHY[part]}")
        return epoch == trainer.current_epoch
