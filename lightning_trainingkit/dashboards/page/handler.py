"""Answer a browser: the page, the form for the token, or an error."""

import io
import socket
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from lightning_trainingkit.dashboards.page.small_pages import login_form, note

if TYPE_CHECKING:
    from lightning_trainingkit.dashboards.page.serving import PageServer

__all__ = ["PageHandler"]

_LONGEST_REQUEST = 2**16  # bytes; a browser sends the cookies of all servers on this machine
_LONGEST_FORM = 2**10
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_SMALL_PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; "
_NO_FRAMES = "frame-ancestors 'none'"  # the rest of the page's policy is in the page


class _Bounded(io.RawIOBase):
    """A request, cut at the largest size."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw, self.left = raw, _LONGEST_REQUEST

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        count = self._raw.readinto(memoryview(buffer)[: self.left])
        self.left -= count or 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class PageHandler(BaseHTTPRequestHandler):
    """Answer one request, then close the connection."""

    server: "PageServer"
    server_version = "trainingkit"
    sys_version = ""
    rbufsize = 0

    def setup(self) -> None:
        """Bound the size of the request."""
        super().setup()
        self._request = _Bounded(self.rfile)  # type: ignore[arg-type]
        self.rfile = io.BufferedReader(self._request)
        self._is_read = False

    def finish(self) -> None:
        """Read the rest of a refused request. Otherwise the close resets the connection, and the answer is lost."""
        if not self._is_read:
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_WR)
                while self.rfile.read(_LONGEST_FORM):
                    pass
        super().finish()

    def parse_request(self) -> bool:
        """Refuse a request that is too long, or that does not name this machine as its host."""
        if not super().parse_request():
            return False
        hosts = self.headers.get_all("Host", [])
        if not self._request.left:
            self.send_error(431)
        elif self.request_version == "HTTP/0.9":
            self.send_error(400)
        elif len(hosts) != 1 or hosts[0] not in self.server.hosts:
            self._send(403, note("Only this machine", f"This page is at {self.server.url} alone."))
        elif self.command != "POST" and not self._is_known():
            self._send(403, login_form())
        else:
            return True
        return False

    def do_GET(self) -> None:
        """Send the page, or the answer that it has not changed."""
        self._is_read = True
        if self.path != "/":
            self.send_error(404)
            return
        kept = self.server.kept.get()
        if kept.error:
            self._send(500, note("No page", kept.error, reload_after=3))
        elif not kept.page:
            self._send(503, note("Reading ...", "The runs are being read.", reload_after=1), {"Retry-After": "1"})
        else:
            known = self.headers.get("If-None-Match") == kept.tag
            self.server.connections.trust(self.connection)
            headers = {"ETag": kept.tag, "Content-Security-Policy": _NO_FRAMES}
            self._send(304 if known else 200, kept.page, headers)

    def do_HEAD(self) -> None:
        """Send the headers of the page."""
        self.do_GET()

    def do_POST(self) -> None:
        """Log in a browser that sends the token, from the login file or from the form."""
        if self.path != "/login":
            if self._is_known():
                self.send_error(404)
            else:
                self._send(403, login_form())
            return
        origin = self.headers.get("Origin", "null")  # "null": from a file, or from a page without referrer
        at_top = self.headers.get("Sec-Fetch-Dest", "document") == "document"
        if (origin != "null" and origin.removeprefix("http://") not in self.server.hosts) or not at_top:
            self._send(403, login_form("Another site has sent this."))
            return
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or "Transfer-Encoding" in self.headers:
            self.send_error(411)
            return
        if len(length) > 9 or int(length) > _LONGEST_FORM:
            self.send_error(413)
            return
        form = self.rfile.read(int(length))
        self._is_read = True
        try:
            fields = parse_qs(form.decode("ascii"), max_num_fields=4)
        except ValueError:
            fields = {}
        if self.server.login.takes(fields.get("token", [""])[0]):
            cookie = {"Set-Cookie": self.server.login.cookie}
            # A page that reloads, not a redirect: after a redirect from a file, browsers send no strict cookie.
            self._send(200, note("Logged in", "The page comes next.", reload_after=0), cookie)
        else:
            self._send(403, login_form("This is not the token."))

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Send an error page. It holds nothing from the request."""
        short, long = self.responses.get(code, ("Error", ""))
        self._send(code, note(str(short), str(long)))

    def log_message(self, *_: object) -> None:
        """Print nothing. A page that follows a training asks every few seconds."""

    def _is_known(self) -> bool:
        return self.server.login.knows(self.headers.get_all("Cookie", []))

    def _send(self, status: int, page: bytes, headers: Mapping[str, str] | None = None) -> None:
        if self.request_version == "HTTP/0.9":  # or the request is not HTTP and has no version
            self.request_version = "HTTP/1.0"
        self.send_response(status)
        policy = {"Content-Security-Policy": _SMALL_PAGE_POLICY + _NO_FRAMES}
        for name, value in {**_HEADERS, **policy, **(headers or {})}.items():
            self.send_header(name, value)
        if status != 304:
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        if status != 304 and self.command != "HEAD":
            self.wfile.write(page)
