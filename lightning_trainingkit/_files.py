"""Files that appear whole or not at all."""

import json
import os
import platform
import shutil
from pathlib import Path
from typing import Any

__all__ = ["put_in_place", "sweep", "temporary", "write_json"]

_HOST = platform.node().replace(".", "_")


def temporary(path: str | Path) -> Path:
    """Where this process writes ``path`` before renaming it: beside it, since a rename is atomic on one disk only."""
    return Path(f"{path}.{_HOST}-{os.getpid()}.tmp")


def sweep(folder: str | Path) -> None:
    """Remove what processes of this machine that are gone have left half-written below ``folder``."""
    if os.name != "posix":  # elsewhere a process can't be asked for
        return
    for file in Path(folder).glob("**/*.tmp"):
        host, _, process = file.suffixes[-2][1:].rpartition("-") if len(file.suffixes) > 1 else ("", "", "")
        if host == _HOST and process.isdigit() and not _runs(int(process)):
            file.unlink(missing_ok=True)


def put_in_place(path: str | Path, written: Path | None = None) -> None:
    """Flush ``temporary(path)`` (or ``written``) and rename it: who reads ``path`` sees the old file or the new one."""
    written, path = written or temporary(path), Path(path)
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


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
