"""Serve the page to one user of this machine."""

import sys
from collections.abc import Callable, Mapping
from http.server import ThreadingHTTPServer
from typing import Any

from lightning_trainingkit.dashboards.page.connections import Connections
from lightning_trainingkit.dashboards.page.handler import PageHandler
from lightning_trainingkit.dashboards.page.kept_page import KeptPage
from lightning_trainingkit.dashboards.page.login import Login

__all__ = ["PageServer"]

_HOST = "127.0.0.1"


class PageServer(ThreadingHTTPServer):
    """Answers ``GET /`` with the page for a browser that has logged in, and everything else with an error.

    Args:
        collect: Returns what the page shows; while the data stay the same, so does the page.
        draw: Makes the page of these data.
        port: 0 takes a free one.
        seconds: How old a page may be.

    Raises:
        OSError: If another process has the port.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        collect: Callable[[], Mapping[str, Any]],
        draw: Callable[[Mapping[str, Any]], str],
        port: int = 0,
        seconds: float = 5.0,
    ) -> None:
        super().__init__((_HOST, port), PageHandler)
        self.kept = KeptPage(collect, draw, seconds)
        self.login = Login(self.server_port)
        self.connections = Connections()
        # What a browser sends as its host: a page of another site that has its name point here sends that name.
        self.hosts = {f"{name}:{self.server_port}" for name in (_HOST, "localhost")}

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{_HOST}:{self.server_port}/"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread."""
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        self.connections.remove(request)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Look for slow clients, twice a second."""
        self.connections.end_overdue()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a connection that broke."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)
