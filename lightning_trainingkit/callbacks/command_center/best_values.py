"""Which end of a metric is the better one, and the best value where W&B cannot keep it."""

import math
from collections.abc import Mapping

from lightning_trainingkit._lightning import EarlyStopping, L, ModelCheckpoint

__all__ = ["BestValues", "epoch_name", "goals_of"]

_GOALS = {"val/acc": "max", "val/loss": "min"}


def goals_of(trainer: L.Trainer, asked: Mapping[str, str] | None) -> dict[str, str]:
    """``"min"`` or ``"max"`` by metric. The user's choice overrules the Trainer's monitors, these the defaults."""
    monitors = {
        callback.monitor: callback.mode
        for callback in trainer.callbacks  # type: ignore[attr-defined]
        if isinstance(callback, EarlyStopping | ModelCheckpoint) and callback.monitor
    }
    return _GOALS | monitors | dict(asked or {})


def epoch_name(name: str) -> str:
    """The name under which loggers get the epoch's value of a metric that is logged by step too.

    Example:
        >>> epoch_name("val_loss"), epoch_name("val_loss/dataloader_idx_1")
        ('val_loss_epoch', 'val_loss_epoch/dataloader_idx_1')
    """
    name, suffix, number = name.partition("/dataloader_idx_")
    return f"{name}_epoch{suffix}{number}"


class BestValues:
    """The best values so far of metrics that have a goal.

    Args:
        goals: ``"min"`` or ``"max"`` by metric.
    """

    def __init__(self, goals: Mapping[str, str]) -> None:
        self.goals = dict(goals)
        self.values: dict[str, float] = {}

    def update(self, metrics: Mapping[str, float]) -> dict[str, dict[str, float]]:
        """Update the best values. NaN is never best, and a metric without a goal is ignored.

        Returns:
            The best values of these metrics in the shape of W&B's own summary: ``{"val_loss": {"min": 0.1}}``.
        """
        for name, value in metrics.items():
            if name in self.goals and not math.isnan(value):
                choose = min if self.goals[name] == "min" else max
                self.values[name] = choose(value, self.values.get(name, value))
        return {name: {self.goals[name]: self.values[name]} for name in metrics if name in self.values}
