"""Keep what was read of a run beside it, until it changes."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from lightning_trainingkit._files import put_in_place, temporary
from lightning_trainingkit.dashboards.read.record import Curve, Record

__all__ = ["load", "save", "signature"]

_FILE = "dashboard.npz"
_FORMAT = 1


def load(source: Path) -> Record | None:
    """What was kept of ``source``; None if there is nothing, or the file has changed since."""
    try:
        with np.load(source.with_name(_FILE), allow_pickle=False) as kept:
            text, numbers = json.loads(kept["text"].tobytes()), kept["numbers"]
        if text["of"] != signature(source):
            return None
        curves, at = {}, 0
        for name, length in text["lengths"].items():
            curves[name] = Curve(*numbers[at : at + 2 * length].reshape(2, length))
            at += 2 * length
        return replace(Record(**text["record"]), curves=curves, source=str(source))
    except Exception:  # a damaged archive raises what it likes; the run is read anew
        return None


def save(source: Path, record: Record, of: Any = None) -> None:
    """Keep what was read; where the folder can't be written to, it is read anew each time.

    Args:
        source: The file.
        record: What it holds.
        of: ``signature(source)`` from before it was read; by default from now.
    """
    path = source.with_name(_FILE)
    columns = [column for curve in record.curves.values() for column in (curve.steps, curve.values)]
    text = json.dumps(
        {
            "of": of or signature(source),
            "record": asdict(replace(record, curves={})),
            "lengths": {name: len(curve.steps) for name, curve in record.curves.items()},
        }
    )
    try:
        with temporary(path).open("wb") as file:
            np.savez(
                file,
                text=np.frombuffer(text.encode(), dtype=np.uint8),
                numbers=np.concatenate(columns) if columns else np.zeros(0),
            )
        put_in_place(path)
    except OSError:
        temporary(path).unlink(missing_ok=True)


def signature(source: Path) -> list[Any]:
    """Changes with the file, the settings beside it, and the format of what is kept."""
    found: list[Any] = [_FORMAT]
    for path in (source, source.with_name("hparams.yaml")):
        if path.exists():
            stat = path.stat()
            found += [path.name, stat.st_size, stat.st_mtime_ns]
    return found
