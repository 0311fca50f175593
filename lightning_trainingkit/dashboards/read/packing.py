"""Pack records as bytes: JSON and plain numbers. Unpacking runs no code and needs no more memory than the bytes."""

import json
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from lightning_trainingkit.dashboards.read.record import Curve, Record

__all__ = ["Found", "pack", "unpack"]

_HEAD = struct.Struct("<QII")  # bytes in total, bytes of the JSON, checksum
_ALIGNED = 8
_MAX_TEXT = 32_000_000  # bytes of JSON, of which each may become fifty in memory
_EXAMPLE = Record(id="")


@dataclass
class Found:
    """The records of one run's files.

    Args:
        records: The run; several runs if one id stands for runs of several W&B projects.
        unread: Files that could not be read, with the reasons.
    """

    records: list[Record]
    unread: dict[Path, str] = field(default_factory=dict)


def pack(found: Found, paths: Sequence[Path]) -> bytes:
    """Pack a run's records as bytes. Numbers stand for ``paths``, so that the files may be moved."""
    arrays, records = [], []
    for record in found.records:
        curves = {}
        for name, curve in record.curves.items():
            arrays += [curve.steps, curve.values] + ([curve.means.ravel()] if curve.means is not None else [])
            curves[name] = [len(curve.steps), curve.means.shape[1] if curve.means is not None else 0]
        source = paths.index(Path(record.source))
        records.append({**vars(record), "curves": curves, "source": source})
    unread = [[paths.index(path), why] for path, why in found.unread.items()]
    text = json.dumps({"records": records, "unread": unread}).encode()
    text += b" " * (-len(text) % _ALIGNED)
    body = text + (np.concatenate(arrays).astype("<f8").tobytes() if arrays else b"")
    return _HEAD.pack(_HEAD.size + len(body), len(text), zlib.crc32(body)) + body


def unpack(content: bytes | memoryview, paths: Sequence[Path]) -> Found:
    """Unpack the bytes from :func:`pack`.

    Raises:
        ValueError: If the bytes are damaged.
    """
    try:
        size, length, checksum = _HEAD.unpack_from(content)
        body = memoryview(content)[_HEAD.size :]
        if size != len(content) or zlib.crc32(body) != checksum:
            raise ValueError("the checksum does not fit.")
        if length > _MAX_TEXT:
            raise ValueError(f"its names and settings must have at most {_MAX_TEXT:,} bytes, got more.")
        described = json.loads(bytes(body[:length]))
        numbers, at = np.frombuffer(body, dtype="<f8", offset=length), 0
        records = []
        for each in described["records"]:
            curves = {}
            for name, (points, shares) in each["curves"].items():
                end = at + 2 * points + 3 * shares
                if not (points >= 0 and shares >= 0 and end <= len(numbers)):
                    raise ValueError("a curve is cut off.")
                steps, values = numbers[at : at + 2 * points].reshape(2, points)
                means = numbers[at + 2 * points : end].reshape(3, shares) if shares else None
                curves[name], at = Curve(steps, values, means), end
            records.append(_checked({**each, "curves": curves, "source": str(paths[each["source"]])}))
        return Found(records, {paths[place]: str(why) for place, why in described["unread"]})
    except (struct.error, KeyError, TypeError, IndexError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError(f"it is damaged: {error}.") from error


def _checked(values: dict[str, Any]) -> Record:
    """Make a record, and check the types of its fields: any program may have written the file."""
    for each in fields(Record):
        expected = type(getattr(_EXAMPLE, each.name))
        kind: Any = (int, float) if expected is float else expected
        if not isinstance(values[each.name], kind):
            raise TypeError(f"`{each.name}` is no {expected.__name__}")
    record = Record(**values)
    texts = [*record.tags, *record.goals.values()]
    plain = all(value is None or isinstance(value, str | int | float) for value in record.config.values())
    if not plain or not all(isinstance(each, str) for each in texts):
        raise TypeError("a value has another type")
    if not all(map(math.isfinite, (record.started, record.seconds, *record.summary.values()))):
        raise ValueError("a number is not finite.")
    return record
