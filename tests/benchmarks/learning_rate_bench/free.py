"""Optimizers that need no learning rate, at their defaults."""

import contextlib
import io
from collections.abc import Callable
from typing import Any

from .tasks import Net

__all__ = ["FREE"]


def _prodigy(module: Net) -> Any:
    from prodigyopt import Prodigy

    with contextlib.redirect_stdout(io.StringIO()):  # it prints how it decays the weights
        return Prodigy(_trainable(module), weight_decay=module.task.weight_decay)


def _schedule_free(module: Net) -> Any:
    """Of the same kind as the task's optimizer."""
    import schedulefree

    kind = getattr(schedulefree, f"{module.task.optimizer}ScheduleFree")
    optimizer = kind(_trainable(module), weight_decay=module.task.weight_decay)
    optimizer.train()
    return optimizer


def _trainable(module: Net) -> list[Any]:
    return [each for each in module.parameters() if each.requires_grad]


FREE: dict[str, Callable[[Net], Any]] = {"Prodigy": _prodigy, "schedule-free": _schedule_free}
