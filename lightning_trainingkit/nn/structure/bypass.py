"""Run every forward pass as the module defines it, without feature caches."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["are_caches_bypassed", "caches_bypassed"]

_BYPASSED = ContextVar("caches bypassed", default=False)


@contextmanager
def caches_bypassed() -> Iterator[None]:
    """Switch off all feature caches in the block, for code that watches or changes layers during a forward pass."""
    token = _BYPASSED.set(True)
    try:
        yield
    finally:
        _BYPASSED.reset(token)


def are_caches_bypassed() -> bool:
    """Whether the caller runs inside ``caches_bypassed``."""
    return _BYPASSED.get()
