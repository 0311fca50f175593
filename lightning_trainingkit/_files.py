"""Write files that appear whole or not at all."""

import json
import os
import platform
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning_trainingkit._locks import is_held

__all__ = ["check_no_folder", "claim", "is_running", "put_in_place", "sweep", "temporary", "write_bytes", "write_json"]

_HOST = platform.node().replace(".", "_")
_MARK = ".trainingkit"  # marks folders that `put_in_place` wrote and may replace


def temporary(path: str | Path) -> Path:
    """The name under which this process writes ``path`` before the rename. A rename is atomic on one disk only."""
    return Path(f"{path}.{_HOST}-{os.getpid()}.tmp")


def sweep(folder: str | Path) -> None:
    """Remove half-written files below ``folder`` whose process, on this machine, has ended.

    Files stay if another process holds them or a folder around them: process numbers of another container are not valid
    here.
    """
    if os.name != "posix":  # other systems can't tell whether a process runs
        return
    folder = Path(folder)
    for file in list(folder.glob("**/*.tmp")):
        host, _, process = file.suffixes[-2][1:].rpartition("-") if len(file.suffixes) > 1 else ("", "", "")
        if host != _HOST or not process.isdigit() or is_running(int(process)):
            continue
        around = [folder / parent for parent in file.relative_to(folder).parents]
        if not any(map(is_held, [file, *around])):
            _remove(file)


def claim(path: str | Path) -> bool:
    """Reserve a name until ``put_in_place``. False if the file exists or another process has reserved it."""
    mark = _claim(path)
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.open("x").close()
    except FileExistsError:
        return False
    if Path(path).exists():  # checked last: its writer may have been about to rename it
        mark.unlink(missing_ok=True)
        return False
    return True


def put_in_place(path: str | Path, written: Path | None = None) -> None:
    """Flush ``temporary(path)`` (or ``written``) and rename it. Readers of ``path`` see the old file or the new one.

    Raises:
        IsADirectoryError: If ``path`` is a folder. A sharded checkpoint that this function wrote is replaced.
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
    """Raise IsADirectoryError if ``path`` is a folder, and so no place for a file."""
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
    """Write ``data`` as JSON, whole or not at all. NaN and Infinity raise: no other language reads them."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, f"{json.dumps(data, indent=2, allow_nan=False)}\n".encode())


def _flush(path: Path) -> None:
    if os.name != "posix":  # other systems can't open a folder
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_running(process: int) -> bool:
    """Whether a process of this machine, given by its number, runs."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
