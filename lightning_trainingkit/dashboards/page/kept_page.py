"""Keep a page up to date in the background, so that whoever asks gets the last one at once."""

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lightning_trainingkit.dashboards.printable import printable
from lightning_trainingkit.dashboards.secret import hide

__all__ = ["Kept", "KeptPage"]

_PATIENCE = 0.3  # seconds: most folders are read again in this time


@dataclass(frozen=True)
class Kept:
    """What there is to show.

    Args:
        page: Empty until the first one is drawn.
        tag: Differs where the page differs.
        error: Why there is no page, empty if there is one.
    """

    page: bytes = b""
    tag: str = ""
    error: str = ""


class KeptPage:
    """A page that is made again when it is asked for and the last one is older than ``seconds``.

    Args:
        collect: Returns what the page shows; while the data stay the same, so does the page.
        draw: Makes the page of these data.
        seconds: How old a page may be.
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
        """Return the newest page, or the last one where collecting takes longer than a moment."""
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
        except Exception as error:  # whatever it was, the next time may go well
            self._kept = Kept(error=printable(hide(str(error))) or type(error).__name__)
        finally:
            self._made = time.monotonic()
            self._idle.set()
