"""Curves from rows of metrics."""

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np

from lightning_trainingkit.dashboards.read.record import Curve

__all__ = ["STEP", "Rows", "is_number"]

STEP = "trainer/global_step"  # what Lightning's WandbLogger and CommandCenter count in; else W&B's own count of rows

_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_COUNTERS = {STEP, "epoch", "step"}


def is_number(value: Any) -> bool:
    """Whether a value is a number, and no yes or no."""
    return isinstance(value, int | float) and not isinstance(value, bool)


class Rows:
    """Collects what each row says of each metric; what is no number, an image say, is passed over."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))

    def add(self, step: Any, row: Mapping[str, Any]) -> None:
        """Add a row of metrics that were logged together.

        Args:
            step: Where training stood, a number; without one the row is passed over.
            row: Values by name; those that begin with an underscore, and counters, are no metrics.
        """
        if not isinstance(step, int | float) or not math.isfinite(step):
            return
        for name, value in row.items():
            if isinstance(value, str):
                value = _WORDS.get(value)
            if is_number(value) and not name.startswith("_") and name not in _COUNTERS:
                steps, values = self._found[name]
                steps.append(step)
                values.append(value)

    def curves(self) -> dict[str, Curve]:
        """Each metric in the order of its steps."""
        found = {}
        for name, columns in self._found.items():
            steps, values = (np.array(column, dtype=np.float64) for column in columns)
            order = np.argsort(steps, kind="stable")
            found[name] = Curve(steps[order], values[order])
        return found
