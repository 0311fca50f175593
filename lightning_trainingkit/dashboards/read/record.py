"""What is known of a run, wherever it was recorded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_trainingkit.dashboards.secret import hide, hide_settings

__all__ = ["END_OF_TIME", "LEFT_OUT", "Curve", "Record", "UnreadableError", "flatten"]

LEFT_OUT = "(left out)"
"""The setting that says that not all settings were read."""

END_OF_TIME = 253402300800.0
"""The year 10000 in seconds since 1970. No date goes beyond."""

_MAX_SETTINGS = 5000
_MAX_DEPTH = 30
_MAX_TEXT = 1000

Floats = NDArray[np.float64]


class UnreadableError(ValueError):
    """A file holds no run; the text says why."""


@dataclass
class Curve:
    """A metric's values, NaN and infinities among them, in the order in which they were logged.

    Args:
        steps: Where training stood.
        values: What was logged there.
        means: Of a curve that was thinned, mean step, mean value and count of each share, shape ``(3, shares)``.
    """

    steps: Floats
    values: Floats
    means: Floats | None = None


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


def flatten(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten nested settings: keys are joined by dots. Empty settings and W&B's own are left out.

    A list of plain values is one setting. Long texts are cut. Where settings are too many or too deep, the setting
    ``LEFT_OUT`` says so. A list's secrets are hidden before the list becomes a text.

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
            found[LEFT_OUT] = f"of {_MAX_SETTINGS} settings and {_MAX_DEPTH} levels, what is beyond is missing"
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
