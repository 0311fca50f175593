"""Keep a page up to date in the background, so that each request gets the last page at once."""

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lightning_trainingkit.dashboards.printable import printable
from lightning_trainingkit.dashboards.secret import hide

__all__ = ["Kept", "KeptPage"]

_PATIENCE = 0.3  # seconds: enough to read most folders again


@dataclass(frozen=True)
class Kept:
    """A page, or the error that prevents it.

    Args:
        page: The page as bytes, empty until the first page is drawn.
        tag: Text that changes with the page.
        error: Why there is no page, empty if there is one.
    """

    page: bytes = b""
    tag: str = ""
    error: str = ""


class KeptPage:
    """A page that is drawn again if a request comes and the last page is older than ``seconds``.

    Args:
        collect: Returns the data of the page. While the data are equal, the page stays.
        draw: Draws the page from the data.
        seconds: Largest age of a page.
    """

    def __init__(
        self, collect: Callable[[], Mapping[str, Any]], draw: Callable[[Mapping[str, Any]], str], seconds: float
    ) -> None:
        self._collect, self._draw, self._seconds = collect, draw, seconds
        self._lock = threading.Lock()
        self._idle = threading.Event()
        self._idle.set()
        self._made = -float("inf")
        self._data: Mapping[str, Any] | None = None
        self._last, self._kept = Kept(), Kept()

    @property
    def is_busy(self) -> bool:
        """Whether data are being collected."""
        return not self._idle.is_set()

    def get(self) -> Kept:
        """Return the new page, or the last page if collecting takes longer than 0.3 s."""
        with self._lock:
            if self._idle.is_set() and time.monotonic() - self._made > self._seconds:
                self._idle.clear()
                threading.Thread(target=self._make, daemon=True).start()
        self._idle.wait(_PATIENCE)
        return self._kept

    def _make(self) -> None:
        try:
            data = self._collect()
            if data != self._data or not self._last.page:
                page = self._draw(data).encode("utf-8", "backslashreplace")
                self._data, self._last = data, Kept(page, f'"{hashlib.sha256(page).hexdigest()[:20]}"')
            self._kept = self._last
        except Exception as error:  # of any kind: the next try may succeed
            self._kept = Kept(error=printable(hide(str(error))) or type(error).__name__)
        finally:
            self._made = time.monotonic()
            self._idle.set()
