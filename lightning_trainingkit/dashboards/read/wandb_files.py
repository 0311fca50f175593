"""Read runs from W&B's files, offline or synced."""

import json
from collections.abc import Iterable, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from lightning_trainingkit.dashboards.read.record import Record, UnreadableError
from lightning_trainingkit.dashboards.read.wandb_inspect import read_by_inspect
from lightning_trainingkit.dashboards.read.wandb_log import WandbLog
from lightning_trainingkit.dashboards.read.wandb_run import MOST_VALUES, WandbRun, best_end

__all__ = ["read_wandb_file", "record_classes"]

_LARGEST = 4 << 30  # a million rows of 10 metrics have 1 GB
_LONGEST_TEXT = 1 << 20  # characters of a setting as JSON
_LONGEST_WORD = 100
_WORDS = ("NaN", "Infinity", "-Infinity")
_BEYOND = 10**400  # stands for numbers that no float64 holds; JSON may contain them
_FIELDS = {
    "Record": ("num", "run", "config", "metric", "summary", "history", "exit"),
    "RunRecord": ("run_id", "display_name", "project", "run_group", "job_type", "tags", "start_time", "config"),
    "ConfigRecord": ("update", "remove"),
    "ConfigItem": ("key", "nested_key", "value_json"),
    "SummaryRecord": ("update", "remove"),
    "SummaryItem": ("key", "nested_key", "value_json"),
    "HistoryRecord": ("item",),
    "HistoryItem": ("key", "nested_key", "value_json"),
    "MetricRecord": ("name", "summary"),
    "MetricSummary": ("min", "max"),
    "RunExitRecord": ("exit_code", "runtime"),
}


def read_wandb_file(path: Path) -> Record:
    """Read ``run-ID.wandb`` in this process. The file may be growing.

    - **State**: ``finished`` or ``failed`` if the file holds the run's end, ``unknown`` if not.
    - **Damage**: the whole records of a damaged file are read. The note says how many records are missing.
    - **Decoding**: W&B's own classes decode the records. If W&B has changed the classes, ``wandb leet inspect`` reads
      the file, ten times slower.

    Raises:
        UnreadableError: If the file is empty, holds no run or is too large, or if W&B is too old to read it.
    """
    try:
        if not path.is_file():  # a pipe would never end
            raise UnreadableError("it is no file.")
        if path.stat().st_size > _LARGEST:
            raise UnreadableError(f"it has more than {_LARGEST >> 30} GiB.")
        with path.open("rb") as file:
            log = WandbLog(file)
            classes = record_classes() if log.version == 0 else None
            record = read_by_inspect(path) if classes is None else _read(log, classes)
    except UnreadableError:
        raise
    except OSError as error:
        raise UnreadableError(f"{type(error).__name__}: {error.strerror or error}.") from error
    except Exception as error:  # one bad file must not prevent the page of all runs
        raise UnreadableError(f"{type(error).__name__}: {str(error)[:200]}.") from error
    record.source = str(path)
    return record


def record_classes() -> Any:
    """W&B's module of record classes, or None if a class or a field is missing."""
    try:
        from wandb.proto import wandb_internal_pb2 as classes

        fits = all(
            name in getattr(classes, kind).DESCRIPTOR.fields_by_name
            for kind, names in _FIELDS.items()
            for name in names
        )
    except (ImportError, AttributeError):
        return None
    return classes if fits else None


def _read(log: WandbLog, classes: Any) -> Record:
    run = WandbRun()
    summary: dict[str, str] = {}
    read = newest = garbled = 0
    for payload in log:
        try:
            record = classes.Record.FromString(payload)
        except Exception:  # protobuf's DecodeError: protobuf is W&B's dependency, not the kit's
            garbled += 1
            continue
        read, newest = read + 1, max(newest, record.num)
        kind = record.WhichOneof("record_type")
        if kind == "history":
            run.row(_values(_texts(record.history.item)))
        elif kind == "summary":
            if len(summary) < MOST_VALUES:
                summary.update(_texts(record.summary.update))
            for name in _texts(record.summary.remove):
                summary.pop(name, None)
        elif kind == "config":
            _configure(run, record.config)
        elif kind == "run":
            _identify(run, record.run)
        elif kind == "metric":
            run.metric(record.metric.name, {end: getattr(record.metric.summary, end) for end in ("min", "max")})
        elif kind == "exit":
            run.end(record.exit.exit_code, record.exit.runtime)
    run.summarize(_values(summary))
    if damaged := log.damaged + garbled:
        # W&B numbers the records. The gaps count the missing records, unless the damaged bytes can't hold so many.
        missing = newest - read
        damaged = missing if damaged < missing <= log.damaged_bytes // 8 else damaged
        run.note(f"{damaged} of {read + damaged} records are corrupt and left out: rows or settings may be missing")
    return run.record(log.cut_off)


def _texts(items: Iterable[Any]) -> dict[str, str]:
    """Return JSON by name. Dots join the names of nested values, as in `wandb leet inspect`."""
    return {
        path[0] if len(path := item.nested_key) == 1 else ".".join(path) or item.key: item.value_json for item in items
    }


def _values(texts: Mapping[str, str]) -> dict[str, Any]:
    """Read numbers and words from JSON."""
    values: dict[str, Any] = {}
    for name, text in texts.items():
        try:
            value = float(text)
        except ValueError:
            values[name] = _best(text) if text[:1] == "{" else _word(text)
        else:
            values[name] = value if isfinite(value) or text in _WORDS else _BEYOND
    return values


def _word(text: str) -> str | None:
    """A short text, or None for every other value. Such texts spell NaN, or name the type of an image."""
    if text[:1] != '"' or len(text) > _LONGEST_WORD:
        return None
    try:
        word = json.loads(text)
    except ValueError:
        return None
    return word if isinstance(word, str) else None


def _best(text: str) -> Any:
    """A summary's best value such as ``{"min": 0.1}``, or None for every other mapping."""
    if len(text) > _LONGEST_WORD:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and best_end(found) else None


def _configure(run: WandbRun, config: Any) -> None:
    for name, text in _texts(config.update).items():
        try:
            if len(text) > _LONGEST_TEXT:
                raise ValueError("too long")
            run.setting(name, json.loads(text))
        except (ValueError, RecursionError):
            run.leave_out(name)
    for name in _texts(config.remove):
        run.forget_setting(name)


def _identify(run: WandbRun, record: Any) -> None:
    names = ("run_id", "display_name", "project", "run_group", "job_type", "tags")
    start = record.start_time
    run.identify({name: getattr(record, name) for name in names} | {"started": start.seconds + start.nanos / 1e9})
    _configure(run, record.config)
