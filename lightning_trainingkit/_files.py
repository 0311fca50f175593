"""Files that appear whole or not at all."""

import json
import os
import platform
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning_trainingkit._locks import is_held

__all__ = ["check_no_folder", "claim", "put_in_place", "sweep", "temporary", "write_bytes", "write_json"]

_HOST = platform.node().replace(".", "_")
_MARK = ".trainingkit"  # stands in each folder that was put in place, and says that it may be replaced


def temporary(path: str | Path) -> Path:
    """Where this process writes ``path`` before renaming it: beside it, since a rename is atomic on one disk only."""
    return Path(f"{path}.{_HOST}-{os.getpid()}.tmp")


def sweep(folder: str | Path) -> None:
    """Remove what processes of this machine that are gone have left half-written below ``folder``.

    Files that another process holds, itself or a folder around them, stay: the number of a process that lives in
    another container means nothing here.
    """
    if os.name != "posix":  # elsewhere a process can't be asked for
        return
    folder = Path(folder)
    for file in list(folder.glob("**/*.tmp")):
        host, _, process = file.suffixes[-2][1:].rpartition("-") if len(file.suffixes) > 1 else ("", "", "")
        if host != _HOST or not process.isdigit() or _runs(int(process)):
            continue
        around = [folder / parent for parent in file.relative_to(folder).parents]
        if not any(map(is_held, [file, *around])):
            _remove(file)


def claim(path: str | Path) -> bool:
    """Reserve a name until ``put_in_place``. False if there is a file, or another process has reserved the name."""
    mark = _claim(path)
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.open("x").close()
    except FileExistsError:
        return False
    if Path(path).exists():  # only now: its writer may have been about to rename it
        mark.unlink(missing_ok=True)
        return False
    return True


def put_in_place(path: str | Path, written: Path | None = None) -> None:
    """Flush ``temporary(path)`` (or ``written``) and rename it: who reads ``path`` sees the old file or the new one.

    Raises:
        IsADirectoryError: If ``path`` is a folder, other than a sharded checkpoint that was put in place earlier.
    """
    written, path = written or temporary(path), Path(path)
    if written.is_dir():  # a sharded checkpoint, which no rename replaces
        (written / _MARK).touch()
        if (path / _MARK).is_file() and not path.is_symlink():
            shutil.rmtree(path)
    try:
        check_no_folder(path)
        _flush(written)
        written.replace(path)
    except OSError:
        _remove(written)
        raise
    _flush(path.parent)
    _claim(path).unlink(missing_ok=True)


def check_no_folder(path: str | Path) -> None:
    """Raise an IsADirectoryError if ``path``, where a file shall stand, is a folder."""
    if Path(path).is_dir():
        raise IsADirectoryError(f"`{path}` must be free for a file, got a folder. It stays as it is: move it away.")


def _claim(path: str | Path) -> Path:
    return Path(f"{path}.claim.tmp")


def _remove(path: Path) -> None:
    with suppress(OSError):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file, whole or not at all. A full disk leaves nothing half-written behind."""
    try:
        temporary(path).write_bytes(content)
        put_in_place(path)
    except BaseException:
        _remove(temporary(path))
        raise


def write_json(path: str | Path, data: Any) -> None:
    """Write ``data`` as JSON, whole or not at all. NaN and Infinity are refused: no other language reads them."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, f"{json.dumps(data, indent=2, allow_nan=False)}\n".encode())


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
