"""Read files that anybody may have put there: pipes and devices never, and never more than expected."""

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
    """Name what a path is, ``"a pipe"`` say, or ``""`` for a regular file. Links are followed.

    Raises:
        OSError: If there is nothing, or links that lead in a circle.
    """
    return _kind(path.stat().st_mode)


def read_regular_file(path: Path, most: int) -> bytes:
    """The content of a regular file.

    Args:
        path: The file.
        most: Its largest size in bytes.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no regular file, or larger.
    """
    # Without O_NONBLOCK a pipe is waited for until somebody writes.
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
