"""Build a run from the records of W&B's file, for both readers."""

import sys
from collections.abc import Mapping
from typing import Any

from lightning_trainingkit.dashboards.read.record import END_OF_TIME, Record, UnreadableError, flatten
from lightning_trainingkit.dashboards.read.rows import STEP, Rows, is_number, without_media

__all__ = ["MOST_VALUES", "WandbRun", "best_end"]

_LARGEST = sys.float_info.max
MOST_VALUES = 10_000  # values in a setting, settings in a run, values in a summary
_DEEPEST = 32
_LONGEST_NAME = 1_000
_MOST_TAGS = 100


class WandbRun:
    """Collect the records of a file. A value beyond the bounds is left out, and the note says so."""

    def __init__(self) -> None:
        self._record = Record(id="")
        self._known = False  # whether a record names the run
        self._rows = Rows()
        self._settings: dict[str, Any] = {}
        self._summary: dict[str, Any] = {}
        self._left_out: list[str] = []  # names of settings
        self._notes: list[str] = []

    def identify(self, run: Mapping[str, Any]) -> None:
        """Add the run's names and tags from W&B's fields, and ``started`` in seconds since 1970."""
        record, self._known = self._record, True
        record.id = run.get("run_id") or record.id
        record.name = run.get("display_name") or record.name
        record.project = run.get("project") or record.project
        record.group = run.get("run_group") or record.group
        record.job_type = run.get("job_type") or record.job_type
        record.tags = [str(tag)[:_LONGEST_NAME] for tag in run.get("tags") or record.tags][:_MOST_TAGS]
        started = run.get("started", 0.0)
        record.started = started if 0 < started < END_OF_TIME else record.started

    def row(self, row: Mapping[str, Any]) -> None:
        """Add a row of history."""
        row = without_media(row)
        self._ran(row.get("_runtime"))
        self._rows.add(row.get(STEP, row.get("_step")), row)

    def setting(self, name: str, value: Any) -> None:
        """Set a setting. W&B's own settings are skipped."""
        if name == "_wandb" or name.startswith("_wandb."):
            return
        if _is_sound(value) and len(self._settings) < MOST_VALUES and len(name) <= _LONGEST_NAME:
            self._settings[name] = value
        else:
            self.leave_out(name)

    def leave_out(self, name: str) -> None:
        """Note a setting that can't be read."""
        if len(self._left_out) < MOST_VALUES:
            self._left_out.append(name)

    def forget_setting(self, name: str) -> None:
        """Remove a setting."""
        self._settings.pop(name, None)

    def summarize(self, values: Mapping[str, Any]) -> None:
        """Update the summary."""
        if len(self._summary) < MOST_VALUES:
            self._summary |= values

    def forget_summary(self, name: str) -> None:
        """Remove a value from the summary."""
        self._summary.pop(name, None)

    def metric(self, name: str, summary: Mapping[str, Any]) -> None:
        """Add a metric's goal, if its summary keeps the largest or the smallest value."""
        goal = "max" if summary.get("max") else "min" if summary.get("min") else None
        if name and goal and len(self._record.goals) < MOST_VALUES:
            self._record.goals[name] = goal

    def end(self, exit_code: int, runtime: Any) -> None:
        """Add the run's end.

        A run may stay open long after its last row, while the same process does other fits: the rows say how long it
        has run, and its end only where there are none.
        """
        # W&B's own code for Ctrl-C is 255.
        self._record.state = "killed" if exit_code == 255 else "failed" if exit_code else "finished"
        if not self._record.seconds:
            self._ran(runtime)

    def note(self, text: str) -> None:
        """Add a note."""
        self._notes.append(text)

    def record(self, cut_off: bool) -> Record:
        """Return the run.

        Args:
            cut_off: Whether the file ends within a record. The note says so only if the run has ended.

        Raises:
            UnreadableError: If no record identifies the run.
        """
        record = self._record
        if not self._known:
            raise UnreadableError("; ".join(["it holds no run", *self._notes]) + ".")
        if not record.id or len(record.id) > _LONGEST_NAME:
            raise UnreadableError(f"its run must have an id, got {record.id[:20]!r}.")
        record.name = record.name or record.id
        for name in ("name", "project", "group", "job_type"):
            if len(text := getattr(record, name)) > _LONGEST_NAME:
                setattr(record, name, f"{text[:_LONGEST_NAME]}…")
        record.config = {_encodable(name): _encodable(value) for name, value in flatten(self._settings).items()}
        for name, value in sorted(without_media(self._summary).items()):
            if isinstance(value, dict) and (end := best_end(value)):
                record.goals.setdefault(name, end)
                value = value[end]
            if not name.startswith("_") and is_number(value) and len(name) <= _LONGEST_NAME and abs(value) <= _LARGEST:
                record.summary[name] = float(value)
        record.curves = dict(sorted(self._rows.curves().items()))
        if self._left_out:
            names = ", ".join(_encodable(name[:50]) for name in self._left_out[:3])
            self.note(f"{len(self._left_out)} settings could not be read: {names}")
        if len(record.tags) == _MOST_TAGS:
            self.note(f"tags after the {_MOST_TAGS}th, if any, were left out")
        if len(self._summary) >= MOST_VALUES:
            self.note(f"the summary has {MOST_VALUES} values or more; some were left out")
        if cut_off and record.state != "unknown":
            self.note("the file is cut off at its end")
        record.note = "; ".join([*self._notes, *self._rows.notes()])
        return record

    def _ran(self, seconds: Any) -> None:
        if is_number(seconds) and 0 < seconds < END_OF_TIME:
            self._record.seconds = max(self._record.seconds, float(seconds))


def best_end(value: Mapping[str, Any]) -> str | None:
    """Return the end of a metric that a summary keeps because of ``define_metric``: ``"min"``, ``"max"`` or None.

    Example:
        >>> best_end({"min": 0.1}), best_end({"last": 0.8, "max": 0.9}), best_end({"min": 0.1, "width": 3})
        ('min', 'max', None)
    """
    ends = value.keys() - {"last"}
    end = next(iter(ends)) if len(ends) == 1 else None
    return end if end in ("min", "max") and is_number(value[end]) else None


def _is_sound(value: Any) -> bool:
    """Whether a setting is neither too deep nor too large, and all its numbers are finite."""
    values, count = [value], 0
    for _ in range(_DEEPEST):
        count += len(values)
        if count > MOST_VALUES or any(is_number(each) and not abs(each) <= _LARGEST for each in values):
            return False
        values = [
            part
            for each in values
            if isinstance(each, dict | list)
            for part in (each.values() if isinstance(each, dict) else each)
        ]
        if not values:
            return True
    return False


def _encodable(value: Any) -> Any:
    """Replace lone surrogates, which JSON allows and UTF-8 does not."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else value
