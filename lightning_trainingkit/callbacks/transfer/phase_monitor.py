"""Follow a metric through the phases of a training: patience, and the best weights."""

from typing import Any

from lightning_trainingkit._lightning import L
from lightning_trainingkit.callbacks._best_weights import BestWeights
from lightning_trainingkit.callbacks._broadcast import mean_over_ranks
from lightning_trainingkit.callbacks._lightning import average_waits
from lightning_trainingkit.functional.improvement import is_better, worst_value

__all__ = ["PhaseMonitor"]


class PhaseMonitor:
    """Counts the checks of a phase without improvement, and keeps the best weights of the training."""

    def __init__(self, monitor: str, mode: str) -> None:
        self.monitor, self.mode = monitor, mode
        self.best = worst_value(mode)
        self.weights = BestWeights("TransferLearning", monitor, mode)
        self.begin_phase()

    def begin_phase(self) -> None:
        """Restart the count of checks."""
        self.wait, self.best_of_phase = 0, worst_value(self.mode)

    def state(self) -> dict[str, Any]:
        """The counters, and the names of the files."""
        return {"wait": self.wait, "best": self.best, "best_of_phase": self.best_of_phase} | self.weights.state()

    def load(self, state: dict[str, Any]) -> None:
        """Load the counters, and the names of the files."""
        self.wait, self.best, self.best_of_phase = (state[key] for key in ("wait", "best", "best_of_phase"))
        self.weights.load(state)

    def judge(self, trainer: L.Trainer, *, keep: bool) -> None:
        """Compare the metric, as a mean over ranks, with the best; ``keep`` writes the best weights to a file."""
        if average_waits(trainer, f"TransferLearning: {self.monitor}"):
            return
        current = mean_over_ranks(trainer, trainer.callback_metrics[self.monitor].squeeze())
        if is_better(current, self.best, self.mode):
            self.weights.replace(trainer, keep=keep)
            self.best = current
        improved = is_better(current, self.best_of_phase, self.mode)
        self.wait = 0 if improved else self.wait + 1
        self.best_of_phase = current if improved else self.best_of_phase
