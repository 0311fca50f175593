"""Log browsers in: only a browser that has shown the token may read the page. A private file holds the token."""

import hmac
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Login", "login_file"]

_FILE = """<!doctype html>
<meta charset="utf-8">
<title>Command center</title>
<form method="post" action="{url}login">
<input name="token" type="hidden" value="{token}">
<button>Open the command center</button>
</form>
<script>document.forms[0].submit()</script>
"""


class Login:
    """The token that logs a browser in, and the cookie that the browser sends afterwards.

    Browsers send a cookie to all ports of a host. So another server on this machine sees the cookie if the same
    browser visits it. The same holds for Jupyter's cookie.

    Args:
        port: Port of the server. It is part of the cookie's name, so that two servers have different cookies.
    """

    def __init__(self, port: int) -> None:
        self.token = secrets.token_urlsafe(32)
        self._name, self._value = f"trainingkit-{port}", secrets.token_urlsafe(32)

    @property
    def cookie(self) -> str:
        """The header ``Set-Cookie``: hidden from scripts, and not sent with requests that another site causes."""
        return f"{self._name}={self._value}; Path=/; HttpOnly; SameSite=Strict"

    def takes(self, token: str) -> bool:
        """Whether the text is the token."""
        return _equal(token.strip(), self.token)

    def knows(self, headers: Sequence[str]) -> bool:
        """Whether one of a request's ``Cookie`` headers holds the cookie."""
        pairs = (part.strip().partition("=") for header in headers for part in header.split(";"))
        return any(name == self._name and _equal(value, self._value) for name, _, value in pairs)


@contextmanager
def login_file(url: str, token: str) -> Iterator[Path]:
    """Write an HTML file that logs a browser in at ``url``, and remove it at the end of the block.

    Only this file holds the token. The list of processes and the browser's history show the file's path alone. Only
    the owner may read the file and its folder.
    """
    folder = Path(tempfile.mkdtemp(prefix="trainingkit-", dir=_runtime_folder()))  # mode 0700
    try:
        file = folder / "login.html"
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            opened.write(_FILE.format(url=url, token=token))
        yield file
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _runtime_folder() -> Path | None:
    """The user's private runtime folder, or None if only the folder for temporary files is usable."""
    folder = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    if os.name != "posix" or not folder.is_absolute() or not os.access(folder, os.W_OK | os.X_OK):
        return None
    return folder if folder.stat().st_uid == os.getuid() else None  # `sudo` may leave the folder of another user


def _equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode())
