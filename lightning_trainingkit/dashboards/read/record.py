"""The record of a run, from any logger."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_trainingkit.dashboards.secret import hide, hide_settings

__all__ = ["END_OF_TIME", "LEFT_OUT", "Curve", "Record", "UnreadableError", "flatten"]

LEFT_OUT = "(left out)"
"""Name of the setting which says that some settings are left out."""

END_OF_TIME = 253402300800.0
"""The year 10000 in seconds since 1970. No date goes beyond."""

_MAX_SETTINGS = 5000
_MAX_DEPTH = 30
_MAX_TEXT = 1000

Floats = NDArray[np.float64]


class UnreadableError(ValueError):
    """A file holds no run. The message gives the reason."""


@dataclass
class Curve:
    """A metric's values in the order of logging, with NaN and infinities.

    Args:
        steps: Training steps at which values were logged.
        values: The logged values.
        means: Mean step, mean value and count of each share of a thinned curve, shape ``(3, shares)``.
    """

    steps: Floats
    values: Floats
    means: Floats | None = None

    @property
    def points(self) -> tuple[Floats, Floats]:
        """Steps and values whose mean is the logged one's. The extremes that a thinned curve keeps have another."""
        return (self.steps, self.values) if self.means is None else (self.means[0], self.means[1])


@dataclass
class Record:
    """One run.

    Args:
        id: Identity within the project.
        name: Display name; by default the identity.
        project: W&B project, or the name of the folder.
        group: Group of the runs of one experiment, or an empty text.
        job_type: Role of the run in its group, or an empty text.
        tags: Words for the search.
        state: ``running``, ``finished``, ``failed``, ``killed``, or ``unknown`` without an end and without a heartbeat.
        started: Start time in seconds since 1970, 0 if unknown.
        seconds: Duration in seconds.
        config: Settings with flattened names, such as ``optimizer.lr``.
        goals: Better end of each metric for which the run says it, ``"min"`` or ``"max"``.
        summary: Last or best values from the run's summary.
        curves: Curves by metric.
        source: File or address from which the run was read.
        note: Faults of the source, if any.
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


def flatten(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten nested settings: keys are joined by dots. Empty settings and W&B's own are left out.

    A list of plain values is one setting. Long texts are cut. If there are too many settings or levels, the setting
    ``LEFT_OUT`` says so. Secrets in a list are hidden before the list becomes a text.

    Example:
        >>> flatten({"lr": 0.1, "net": {"width": 3, "acts": ["relu"]}, "_wandb": {"v": 1}, "none": {}})
        {'lr': 0.1, 'net.width': 3, 'net.acts': "['relu']"}
    """
    found: dict[str, Any] = {}
    todo: list[tuple[str, Any, int]] = [("", {key: each for key, each in settings.items() if key != "_wandb"}, 0)]
    visited = 0
    while todo:
        name, value, depth = todo.pop()
        visited += 1
        if isinstance(value, set | frozenset):
            value = sorted(value, key=str)
        if depth > _MAX_DEPTH or visited > 4 * _MAX_SETTINGS or len(found) >= _MAX_SETTINGS:
            found[LEFT_OUT] = f"settings after the first {_MAX_SETTINGS}, or below {_MAX_DEPTH} levels, are missing"
            if depth <= _MAX_DEPTH:
                break
        elif isinstance(value, Mapping) or (isinstance(value, list | tuple) and _holds_mappings(value)):
            items = value.items() if isinstance(value, Mapping) else enumerate(value)
            below = [(f"{name}.{_text(key)}" if depth else _text(key), each, depth + 1) for key, each in items]
            todo += reversed(below)
        elif not isinstance(value, list | tuple):
            found[name] = _plain(value)
        elif value:
            (hidden,) = hide_settings({name: [_plain(each) for each in value[:_MAX_TEXT]]}).values()
            found[name] = _plain(str(hidden))
    return found


def _holds_mappings(values: Sequence[Any]) -> bool:
    return any(isinstance(each, Mapping | list | tuple) for each in values)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and value.bit_length() <= 64):
        return value
    return _text(value)


def _text(value: Any) -> str:
    # Python refuses to write integers of more than 4,300 digits.
    text = hex(value) if isinstance(value, int) and value.bit_length() > 1000 else str(value)
    return text if len(text) <= _MAX_TEXT else f"{hide(text[: 10 * _MAX_TEXT])[:_MAX_TEXT]}..."
