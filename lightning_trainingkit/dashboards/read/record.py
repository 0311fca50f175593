"""What is known of a run, wherever it was recorded."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Curve", "Record", "UnreadableError", "flatten"]

Floats = NDArray[np.float64]


class UnreadableError(ValueError):
    """A file holds no run; the text says why."""


@dataclass
class Curve:
    """A metric's values, NaN and infinities among them, in the order in which they were logged."""

    steps: Floats
    values: Floats


@dataclass
class Record:
    """One run.

    Args:
        id: Its identity within the project.
        name: What people call it; by default its identity.
        project: W&B project, or the folder's name.
        group: What the runs of one experiment share, or nothing.
        job_type: Its part in its group, or nothing.
        tags: Words to find it by.
        state: ``running``, ``finished``, ``failed``, ``killed``, or ``unknown`` where it has no end and no heartbeat.
        started: Seconds since 1970, 0 if unknown.
        seconds: How long it has run.
        config: Its settings, flattened, ``optimizer.lr`` say.
        goals: Which end of a metric is the better one, ``"min"`` or ``"max"``, where the run says so.
        summary: Last or best values as the run says them.
        curves: By metric.
        source: File or address that it was read from.
        note: What was wrong with that, if anything.
    """

    id: str
    name: str = ""
    project: str = ""
    group: str = ""
    job_type: str = ""
    tags: list[str] = field(default_factory=list)
    state: str = "unknown"
    started: float = 0.0
    seconds: float = 0.0
    config: dict[str, Any] = field(default_factory=dict)
    goals: dict[str, str] = field(default_factory=dict)
    summary: dict[str, float] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    source: str = ""
    note: str = ""


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings with their keys joined by dots; what is empty, and W&B's own, is left out.

    Example:
        >>> flatten({"lr": 0.1, "net": {"width": 3, "acts": ["relu"]}, "_wandb": {"v": 1}, "none": {}})
        {'lr': 0.1, 'net.width': 3, 'net.acts.0': 'relu'}
    """
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if not prefix and key == "_wandb":
            continue
        if isinstance(value, list | tuple):
            value = {str(number): each for number, each in enumerate(value)}
        if isinstance(value, Mapping):
            found |= flatten(value, f"{prefix}{key}.")
        else:
            plain = value is None or isinstance(value, bool | int | float | str)
            found[f"{prefix}{key}"] = value if plain else str(value)
    return found
