"""A folder or a file that another process holds."""

import contextlib
import fcntl
import os


@contextlib.contextmanager
def elsewhere(path):
    """Hold a path as another process does: a lock belongs to an opened file, and this one is not the kit's."""
    descriptor = os.open(path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield
    finally:
        os.close(descriptor)


def free(path):
    """Whether another process could hold it now."""
    try:
        with elsewhere(path):
            return True
    except BlockingIOError:
        return False
