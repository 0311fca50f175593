"""Make curves from rows of metrics."""

import math
from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np

from lightning_trainingkit.dashboards.read.record import Curve

__all__ = ["STEP", "Rows", "is_number", "without_media"]

STEP = "trainer/global_step"  # the steps of Lightning's WandbLogger and CommandCenter; without it, W&B counts rows

_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_COUNTERS = {STEP, "epoch", "step"}
_MOST_METRICS = 10_000  # a page with more would not open
_LONGEST_NAME = 500


def is_number(value: Any) -> bool:
    """Whether a value is an integer or a float, and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def without_media(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Drop the values that describe histograms, tables and images, which have a text ``_type``.

    Example:
        >>> without_media({"image._type": "image-file", "image.height": 4, "net.norm": 1.5})
        {'net.norm': 1.5}
    """
    media = {name[: -len("._type")] for name, kind in row.items() if name.endswith("._type") and isinstance(kind, str)}
    return {name: value for name, value in row.items() if not _within(name, media)} if media else row


def _within(name: str, media: set[str]) -> bool:
    parts = name.split(".")
    return len(name) > _LONGEST_NAME or any(".".join(parts[:count]) in media for count in range(1, len(parts) + 1))


class Rows:
    """Collect the metrics of rows. Values that are no numbers are skipped."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[array[float], array[float]] | None] = {}  # None: no metric
        self._curves = 0
        self._without_step = self._beyond = self._too_many = 0

    def add(self, step: Any, row: Mapping[str, Any]) -> None:
        """Add a row of metrics that were logged together.

        Args:
            step: Training step, a number. A row without a step is left out.
            row: Values by name. Names that begin with an underscore, and counters, are no metrics.
        """
        at = step if type(step) is float else _float(step)
        if at is None or not math.isfinite(at):
            self._without_step += 1
            return
        found = self._found
        for name, value in row.items():
            if type(value) is not float:
                number = _float(value)
                if number is None:
                    self._beyond += is_number(value)
                    continue
                value = number
            try:
                columns = found[name]
            except KeyError:
                columns = self._begin(name)
            if columns is not None:
                columns[0].append(at)
                columns[1].append(value)

    def curves(self) -> dict[str, Curve]:
        """The curve of each metric, in the order of its steps."""
        found = {}
        for name, columns in self._found.items():
            if columns is not None:
                steps, values = (np.array(column, dtype=np.float64) for column in columns)
                if (steps[1:] < steps[:-1]).any():
                    order = np.argsort(steps, kind="stable")
                    steps, values = steps[order], values[order]
                found[name] = Curve(steps, values)
        return found

    def notes(self) -> list[str]:
        """Reasons for left-out values, with counts."""
        reasons = {
            "rows without a step": self._without_step,
            "values beyond the largest number": self._beyond,
            f"values of more than {_MOST_METRICS} metrics or of names of more than {_LONGEST_NAME} characters": (
                self._too_many
            ),
        }
        return [f"{what}, left out: {count}" for what, count in reasons.items() if count]

    def _begin(self, name: str) -> "tuple[array[float], array[float]] | None":
        """Columns for a new metric, or None if the name is no metric."""
        if name.startswith("_") or name in _COUNTERS:
            if len(self._found) < 2 * _MOST_METRICS:
                self._found[name] = None
            return None
        if self._curves == _MOST_METRICS or len(name) > _LONGEST_NAME:
            self._too_many += 1
            return None
        self._curves += 1
        columns = self._found[name] = array("d"), array("d")
        return columns


def _float(value: Any) -> float | None:
    """A number as float, or a word for NaN or infinity as float. None for other values and for too large integers."""
    if isinstance(value, str):
        return _WORDS.get(value)
    try:
        return float(value) if is_number(value) else None
    except OverflowError:  # an integer of hundreds of digits
        return None
