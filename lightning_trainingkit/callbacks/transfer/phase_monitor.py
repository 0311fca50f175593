"""Follow a metric through the phases of a training: patience, and the way back to the best weights."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn

from lightning_trainingkit.callbacks._best_weights import (
    BestWeights,
    average_waits,
    mean_over_ranks,
    restart_averages,
    restore_weights,
)
from lightning_trainingkit.functional.improvement import is_better, worst_value

__all__ = ["PhaseMonitor"]


class PhaseMonitor:
    """Counts checks without improvement in a phase, and keeps the best weights where they will be asked for.

    Args:
        monitor: Name of the metric.
        mode: ``"min"`` or ``"max"``.
    """

    def __init__(self, monitor: str, mode: str) -> None:
        self.monitor, self.mode = monitor, mode
        self.wait = 0
        """Checks without improvement in this phase."""
        self.best = self.best_of_phase = worst_value(mode)
        self.weights = BestWeights(monitor, mode, owner="transfer_learning", looks_inside=True)

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {
            "wait": self.wait,
            "best": self.best,
            "best_of_phase": self.best_of_phase,
            "best_file": self.weights.file,
            "own_files": self.weights.own,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.wait, self.best, self.best_of_phase = (state[key] for key in ("wait", "best", "best_of_phase"))
        self.weights.file = self.weights.named = state["best_file"]
        self.weights.own = state["own_files"]

    def start(self, trainer: L.Trainer) -> None:
        """See that the best weights can be kept and, after a resume, are still there."""
        if not self.weights.start(trainer, self.best):
            rank_zero_warn(
                f"{self.monitor} was {self.best:.4g} at its best before the resume, and nobody kept the weights of "
                "then: TransferLearning will restore the best of the epochs from here on."
            )
            self.best = worst_value(self.mode)
        if (inherited := self.weights.inherited(trainer, self.best)) is not None:
            self.best = inherited

    def judge(self, trainer: L.Trainer, *, keep: bool, validated: bool) -> None:
        """Compare what was just logged, the mean over ranks, with the best; keep the weights if they are.

        Args:
            trainer: Where it was logged.
            keep: Whether the best weights will be asked for.
            validated: Whether validation logged it, on the average of weights if there is one.
        """
        waits = average_waits(trainer)
        if waits:
            self.weights.own = True  # a ModelCheckpoint may take the untrained weights for the best
        if waits and (keep or validated):
            rank_zero_warn(
                f"TransferLearning: {self.monitor} {'does not count' if validated else 'has no best weights'} until "
                "the average of weights begins: validation and checkpoints have the weights that the fit began with."
            )
        if waits and validated:
            return
        current = mean_over_ranks(trainer, trainer.callback_metrics[self.monitor].squeeze())
        if not waits and is_better(current, self.best, self.mode):
            if keep:
                self.weights.keep(trainer)
            else:
                self.weights.forget()
            self.best = current
        improved = is_better(current, self.best_of_phase, self.mode)
        self.wait = 0 if improved else self.wait + 1
        self.best_of_phase = current if improved else self.best_of_phase

    def restore(self, trainer: L.Trainer) -> None:
        """Go back to the best weights, if there are some; an average of weights goes with them."""
        if file := self.weights.find(trainer, self.best):
            restore_weights(trainer, file)
            restart_averages(trainer)
        elif bool(torch.isfinite(self.best)):
            rank_zero_warn(
                f"TransferLearning: {self.monitor} was {self.best:.4g} at its best, and nobody kept the weights of "
                "then: the phase begins with those of now."
            )

    def begin_phase(self) -> None:
        """Count anew."""
        self.wait, self.best_of_phase = 0, worst_value(self.mode)
