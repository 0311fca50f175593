"""The open connections of a server: not too many, and none for too long."""

import socket
import threading
import time
from contextlib import suppress

__all__ = ["Connections"]

MOST = 32
REQUEST_SECONDS = 10.0  # for the whole request, and for a short answer
PAGE_SECONDS = 300.0  # for the page, which may go through a slow tunnel


class Connections:
    """Closes the connection of whoever sends or reads too slowly.

    Where there are too many, the oldest is closed, first of those that have not logged in. So nobody who only opens
    connections keeps the user from the page.
    """

    def __init__(self) -> None:
        self._ends: dict[socket.socket, tuple[bool, float]] = {}  # logged in, and when its time is over
        self._lock = threading.Lock()

    def add(self, connection: socket.socket) -> None:
        """Count a new connection."""
        with self._lock:
            while len(self._ends) >= MOST:
                _end(oldest := min(self._ends, key=self._ends.__getitem__))
                del self._ends[oldest]
            self._ends[connection] = False, time.monotonic() + REQUEST_SECONDS

    def trust(self, connection: socket.socket) -> None:
        """Give a connection that has logged in the time that the page may take."""
        with self._lock:
            if connection in self._ends:
                self._ends[connection] = True, time.monotonic() + PAGE_SECONDS

    def remove(self, connection: socket.socket) -> None:
        """Forget a connection that is closed."""
        with self._lock:
            self._ends.pop(connection, None)

    def end_overdue(self) -> None:
        """End the connections whose time is over."""
        now = time.monotonic()
        with self._lock:
            for connection, (_, end) in list(self._ends.items()):
                if end < now:
                    _end(connection)
                    del self._ends[connection]


def _end(connection: socket.socket) -> None:
    """Wake the thread that reads from a connection or writes to it; this thread then closes the connection."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
