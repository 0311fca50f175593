"""Ctrl-C and SIGTERM at a good moment: never between two calls of the storage."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

__all__ = ["Signals"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """Holds SIGINT and SIGTERM back until ``check`` or ``at_once``. A second one acts at once.

    SIGINT becomes KeyboardInterrupt. SIGTERM, which SLURM and Kubernetes send, becomes SystemExit. Outside of the main
    thread, which alone gets signals, nothing changes.
    """

    def __init__(self) -> None:
        self._got: int | None = None
        self._now = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                found = signal.getsignal(number)
                if found in (signal.default_int_handler, signal.SIG_DFL):  # a handler of the user stays
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise if a signal has come."""
        if self._got is not None:
            self._raise(self._got)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Raise in this block as soon as a signal comes."""
        self._now = True
        try:
            self.check()
            yield
        finally:
            self._now = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again, self._got = self._got is not None, number
        if self._now or again:
            self._raise(number)

    def _raise(self, number: int) -> None:
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
