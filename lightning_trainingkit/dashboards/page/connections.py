"""Limit the open connections of a server in number and in time."""

import socket
import threading
import time
from contextlib import suppress

__all__ = ["Connections"]

MOST = 32
REQUEST_SECONDS = 10.0  # for the whole request, and for a short answer
PAGE_SECONDS = 300.0  # for the page, which may go through a slow tunnel


class Connections:
    """Close connections whose client sends or reads too slowly.

    If there are too many connections, the oldest one without a login is closed, and without such a connection the
    oldest one. So a client that only opens connections cannot keep the user from the page.
    """

    def __init__(self) -> None:
        self._ends: dict[socket.socket, tuple[bool, float]] = {}  # whether it has logged in, and when its time ends
        self._lock = threading.Lock()

    def add(self, connection: socket.socket) -> None:
        """Count a new connection."""
        with self._lock:
            while len(self._ends) >= MOST:
                _end(oldest := min(self._ends, key=self._ends.__getitem__))
                del self._ends[oldest]
            self._ends[connection] = False, time.monotonic() + REQUEST_SECONDS

    def trust(self, connection: socket.socket) -> None:
        """Give a connection that has logged in the longer time of the page."""
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
    """Wake the thread that reads from the connection or writes to it. That thread then closes the connection."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
