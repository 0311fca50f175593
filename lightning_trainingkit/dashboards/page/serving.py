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
    """Send the page on ``GET /`` to browsers that have logged in by ``POST /login`` with the token.

    Other paths get an error.

    Args:
        collect: Returns the data of the page. While the data are equal, the page stays.
        draw: Draws the page from the data.
        port: Port of the server; 0 takes a free port.
        seconds: Age of the page after which a request starts to collect the data again. It waits at most 0.3 s.

    Raises:
        OSError: If another process uses the port.
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
        # A site may let its name point to this machine. Its requests carry that name as host, and are refused.
        self.hosts = {f"{name}:{self.server_port}" for name in (_HOST, "localhost")}

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://{_HOST}:{self.server_port}/"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer the request in a new thread."""
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        self.connections.remove(request)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Close the connections of slow clients, twice a second."""
        self.connections.end_overdue()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print errors, but not those of a broken connection."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)
