"""Read files of unknown origin: no pipes, no devices, and no more bytes than expected."""

import os
import stat
from pathlib import Path

__all__ = ["kind_of", "read_regular_file"]

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def kind_of(path: Path) -> str:
    """Name the kind of file at a path, such as ``"a pipe"``, or ``""`` for a regular file. Links are followed.

    Raises:
        OSError: If there is no file, or if links lead in a circle.
    """
    return _kind(path.stat().st_mode)


def read_regular_file(path: Path, most: int) -> bytes:
    """Read the content of a regular file.

    Args:
        path: The file.
        most: Largest size in bytes.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the path is no regular file, or if the file is larger.
    """
    # Without O_NONBLOCK, opening a pipe waits until a process writes.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(descriptor, "rb") as file:
        if kind := _kind(os.fstat(descriptor).st_mode):
            raise ValueError(f"it must be a file, got {kind}.")
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it must have at most {most:,} bytes, got more.")
    return content


def _kind(mode: int) -> str:
    return "" if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "something unknown")
