"""Explain exceptions of a resumed run that ends an epoch without a batch."""

from traceback import walk_tb

from lightning_trainingkit._lightning import L
from lightning_trainingkit._notes import add_note

__all__ = ["explain_repeated_epoch_end"]


def explain_repeated_epoch_end(trainer: L.Trainer, exception: BaseException, resumed_step: int | None) -> None:
    """Add the cause to an exception that ``on_train_epoch_end`` raised directly after a resume.

    Args:
        trainer: The Trainer that the exception interrupts.
        exception: The exception.
        resumed_step: Step of the checkpoint that the run resumed from. None if the run did not resume.
    """
    hooks = {frame.f_code.co_name for frame, _ in walk_tb(exception.__traceback__)}
    if trainer.global_step != resumed_step or "on_train_epoch_end" not in hooks:
        return
    note = (
        "This run resumed from a checkpoint of the end of a validation, so Lightning ended its epoch again without a "
        "batch: lists that `training_step` fills for `on_train_epoch_end` are empty there. Return early from the hook "
        "in that case, or resume from checkpoints of `BestCheckpoint(..., save_on_train_epoch_end=True)`."
    )
    add_note(exception, note)
