"""Serve the page to this machine alone, and keep it up to date."""

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["PageServer"]

_HOST = "127.0.0.1"


class PageServer(ThreadingHTTPServer):
    """Answers ``GET /`` with the page, and every other path, method and host with an error.

    The page is made anew when it is asked for and the last one is older than ``seconds``; who asks meanwhile gets the
    last one.

    Args:
        collect: What the page shows; while it stays the same, so does the page.
        draw: Makes the page of that.
        port: 0 takes a free one.
        seconds: How old a page may be.
    """

    daemon_threads = True

    def __init__(
        self,
        collect: Callable[[], Mapping[str, Any]],
        draw: Callable[[Mapping[str, Any]], str],
        port: int = 0,
        seconds: float = 5.0,
    ) -> None:
        super().__init__((_HOST, port), _Handler)
        self._collect, self._draw = collect, draw
        self._seconds = seconds
        self._busy = threading.Lock()
        self._made = 0.0
        self._data: Mapping[str, Any] | None = None
        self._page, self._tag = b"", ""
        # What a browser sends as its host: a page of another site that has its name point here sends that name.
        self.hosts = {f"{name}:{self.server_port}" for name in (_HOST, "localhost")}

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{_HOST}:{self.server_port}/"

    def page(self) -> tuple[bytes, str]:
        """The page and what tells it from others."""
        if self._busy.acquire(blocking=not self._page):
            try:
                if time.monotonic() - self._made > self._seconds or not self._page:
                    data = self._collect()
                    if data != self._data:
                        page = self._draw(data).encode("utf-8", "backslashreplace")
                        self._data, self._page, self._tag = data, page, f'"{hashlib.sha256(page).hexdigest()[:20]}"'
                    self._made = time.monotonic()
            finally:
                self._busy.release()
        return self._page, self._tag


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    server_version = "trainingkit"
    sys_version = ""

    def do_GET(self) -> None:
        """Send the page, or that it is as it was."""
        if self.headers.get("Host") not in self.server.hosts:
            self.send_error(403, "Only this machine")
            return
        if self.path != "/":
            self.send_error(404)
            return
        try:
            page, tag = self.server.page()
        except (OSError, ValueError) as error:  # the folder is gone, say
            self.send_error(500, "No page", str(error))
            return
        known = self.headers.get("If-None-Match") == tag
        self.send_response(304 if known else 200)
        self.send_header("ETag", tag)
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if not known:
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        if not known:
            self.wfile.write(page)

    def log_message(self, *_: object) -> None:
        """Say nothing: a page that follows a training asks every few seconds."""
