"""Which checks of a metric a resumed run does without, because Lightning leaves them out."""

import lightning as L
from lightning.pytorch.utilities import rank_zero_warn

from lightning_trainingkit.callbacks._lightning import batch_ends, validation_follows

__all__ = ["LostChecks"]

_WHY = {
    "validation": "since Lightning leaves out the validation that was due when the checkpoint was saved. Save at the "
    "end of validations or epochs, by ModelCheckpoint or a callback after this one.",
    "training": "since `training_step` logs it and the checkpoint was saved before the epoch's end. Use "
    "`save_on_train_epoch_end=True`, or a callback after this one.",
}


class LostChecks:
    """Knows what was still to come of a validation or an epoch when a checkpoint was saved.

    Lightning resumes with the next batch: a validation that was due before it never runs, and an epoch ends without
    the metrics that its first steps logged, or, after its last step, does not end at all.
    """

    def __init__(self) -> None:
        self._ahead: dict[str, int] = {}
        self._lost: dict[str, int] = {}
        self._stepped = False

    def ahead(self, trainer: L.Trainer | None) -> dict[str, int]:
        """The epoch whose validation, and the one whose end, are still to come, for a checkpoint of now."""
        if trainer is not None and self._stepped and batch_ends(trainer):  # whoever's hook it is that saves
            self.batch_ended(trainer)
        return dict(self._ahead)

    def load(self, ahead: dict[str, int]) -> None:
        """Go on from a checkpoint."""
        self._ahead, self._lost = dict(ahead), dict(ahead)

    def batch_began(self) -> None:
        """Note that it is no longer the checkpoint's batch that the loop is at."""
        self._stepped = True

    def batch_ended(self, trainer: L.Trainer) -> None:
        """Note what is to come after a batch."""
        parts = ["training", "validation"] if validation_follows(trainer) else ["training"]
        self._ahead = dict.fromkeys(parts, trainer.current_epoch)

    def validation_began(self, trainer: L.Trainer) -> None:
        """Note that it is to come, also where a later callback has asked for it, by stopping."""
        self._ahead["validation"] = trainer.current_epoch

    def ended(self, part: str) -> None:
        """Note that a validation, or an epoch of training, has ended."""
        self._ahead.pop(part, None)

    def tell(self, part: str, trainer: L.Trainer, monitor: str) -> bool:
        """Warn of a check that was lost, now that a validation, or an epoch of training, has logged the metric.

        Returns:
            Whether it is the epoch that ends.
        """
        epoch = self._lost.pop(part, None)
        if epoch is not None:
            rank_zero_warn(f"TransferLearning: {monitor} of epoch {epoch} is lost, {_WHY[part]}")
        return epoch == trainer.current_epoch
