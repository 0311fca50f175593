"""Hold a folder or a file for this process, so that other processes see that it is in use."""

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

if sys.platform != "win32":
    import fcntl

__all__ = ["Lock", "hold", "is_held"]


class Lock:
    """A folder or a file that this process holds until the last reference to this object is gone.

    The kernel frees it when the process ends in any way. A copy or a pickle of a lock is None.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def close(self) -> None:
        """Free the folder or file."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        with suppress(Exception):  # the interpreter may be ending
            self.close()

    def __reduce__(self) -> Any:
        return type(None), ()


_held: WeakValueDictionary[str, Lock] = WeakValueDictionary()


def hold(path: str | Path) -> Lock | None:
    """Hold a folder or a file. All callers in one process share one lock.

    Returns:
        The lock. None if there are no locks (Windows, many network file systems) or ``path`` can't be opened.

    Raises:
        BlockingIOError: If another process holds it.
    """
    place = os.path.realpath(path)
    for _ in range(4):  # another process may be in `is_held` now
        if (lock := _held.get(place)) is not None:
            return lock
        try:
            lock = _held[place] = _lock(place)
        except BlockingIOError:
            time.sleep(0.05)
        except OSError:
            return None
        else:
            return lock
    raise BlockingIOError(f"Another process holds {path}.")


def is_held(path: str | Path) -> bool:
    """Whether another process holds a folder or a file."""
    place = os.path.realpath(path)
    if place in _held:
        return False
    try:
        _lock(place).close()
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _lock(place: str) -> Lock:
    if sys.platform == "win32":
        raise OSError("Windows has no flock.")
    descriptor = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return Lock(descriptor)


def _let_go_in_child() -> None:
    """Free the locks in a forked process, such as a worker of a DataLoader, which may outlive its parent."""
    for lock in list(_held.values()):
        lock.close()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)
