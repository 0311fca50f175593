"""How much of a training lies behind."""

from math import isfinite

from lightning_trainingkit._lightning import L

__all__ = ["check_length", "training_share"]


def training_share(trainer: L.Trainer) -> float:
    """Return the share of the training before the present batch, by ``max_epochs`` or ``max_steps``.

    Of the two limits the one counts that ends the training first.
    """
    shares = [0.0]
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        batches = trainer.num_training_batches
        known = isfinite(batches) and batches > 0
        within = max(trainer.fit_loop.batch_idx, 0) / batches if known else 0.0
        shares.append((trainer.current_epoch + within) / trainer.max_epochs)
    if trainer.max_steps > 0:
        shares.append(trainer.global_step / trainer.max_steps)
    return max(shares)


def check_length(trainer: L.Trainer, until: float) -> None:
    """Raise ValueError if a callback shall end after a share of a training whose length is unknown."""
    endless = trainer.max_epochs is None or trainer.max_epochs < 0
    if until < 1 and endless and trainer.max_steps < 0:
        raise ValueError(
            f"`until` must be 1 where the training has no known length, got {until}. "
            "Give the Trainer max_epochs or max_steps."
        )
