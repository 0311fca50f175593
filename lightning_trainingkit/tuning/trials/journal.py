"""A journal file that no killed worker blocks or breaks."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

__all__ = ["open_journal"]


def open_journal(path: Path) -> "BaseStorage":
    """Open a journal file, or make a new one."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    path.parent.mkdir(parents=True, exist_ok=True)
    lock: Any = JournalFileOpenLock(str(path)) if sys.platform == "win32" else _KernelLock(path)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


class _KernelLock:
    """A lock that the kernel frees when its worker is killed. Optuna's own would block the others for 30 seconds.

    A worker that is killed while it writes may leave half a line, after which Optuna could not read the file. The next
    worker that writes removes it: nobody has been told that it was written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def acquire(self) -> bool:
        """Wait for the lock."""
        import fcntl

        descriptor = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            _remove_half_line(self._path)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Free the lock."""
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)


def _remove_half_line(path: Path) -> None:
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return
        file.seek(size - 1)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
