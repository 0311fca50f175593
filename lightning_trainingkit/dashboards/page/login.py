"""Who may read the served page: a browser that has shown the token, which a private file holds."""

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
    """The token that logs a browser in, and the cookie that the browser shows from then on.

    Browsers send a cookie to all ports of a host. So another server on this machine that the same browser visits sees
    the cookie, as it sees Jupyter's.

    Args:
        port: The server's, which the cookie's name holds, so that two servers keep their own cookies.
    """

    def __init__(self, port: int) -> None:
        self.token = secrets.token_urlsafe(32)
        self._name, self._value = f"trainingkit-{port}", secrets.token_urlsafe(32)

    @property
    def cookie(self) -> str:
        """What the server's ``Set-Cookie`` says: for no script, for no request that another site has caused."""
        return f"{self._name}={self._value}; Path=/; HttpOnly; SameSite=Strict"

    def takes(self, token: str) -> bool:
        """Whether this is the token."""
        return _equal(token.strip(), self.token)

    def knows(self, headers: Sequence[str]) -> bool:
        """Whether one of a request's ``Cookie`` headers holds the cookie."""
        pairs = (part.strip().partition("=") for header in headers for part in header.split(";"))
        return any(name == self._name and _equal(value, self._value) for name, _, value in pairs)


@contextmanager
def login_file(url: str, token: str) -> Iterator[Path]:
    """Write an HTML file that logs a browser in at ``url``, and remove it in the end.

    The token is in this file alone: the list of processes and the browser's history show the file's path. Nobody but
    its owner reads the file or its folder.
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
    """The user's folder for such files, None for the one of temporary files."""
    folder = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    if os.name != "posix" or not folder.is_absolute() or not os.access(folder, os.W_OK | os.X_OK):
        return None
    return folder if folder.stat().st_uid == os.getuid() else None  # `sudo` may leave another user's


def _equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode())
