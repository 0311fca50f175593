"""Files that appear whole or not at all."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

__all__ = ["put_in_place", "temporary", "write_json"]

_SUFFIX = ".tmp"


def temporary(path: str | Path) -> Path:
    """Where ``path`` is written before it is renamed: beside it, since a rename is atomic on one disk only."""
    return Path(f"{path}{_SUFFIX}")


def put_in_place(path: str | Path) -> None:
    """Flush ``temporary(path)`` to the disk and rename it: who reads ``path`` sees the old file or the new one."""
    written, path = temporary(path), Path(path)
    if path.is_dir():  # a sharded checkpoint is a folder, which no rename replaces
        shutil.rmtree(path)
    _flush(written)
    written.replace(path)
    _flush(path.parent)


def write_json(path: str | Path, data: Any) -> None:
    """Write ``data`` as JSON, whole or not at all. NaN and Infinity are refused: no other language reads them."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    temporary(path).write_text(json.dumps(data, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    put_in_place(path)


def _flush(path: Path) -> None:
    if os.name != "posix":  # elsewhere a folder can't be opened
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
