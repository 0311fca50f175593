"""Replace attributes of objects for a while."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["patched"]


@contextmanager
def patched(entries: Iterable[tuple[Any, str, Any]]) -> Iterator[None]:
    """Put values into the ``__dict__`` of objects, and put back what stood there, also after an error.

    Args:
        entries: Objects, names of attributes and values.

    Example:
        >>> class Net:
        ...     def forward(self):
        ...         return 1
        >>> net = Net()
        >>> with patched([(net, "forward", lambda: 2)]):
        ...     net.forward()
        2
        >>> net.forward()
        1
    """
    undo: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for owner, name, value in entries:
            attributes = vars(owner)
            undo.append((attributes, name, attributes.get(name, _MISSING)))
            attributes[name] = value
        yield
    finally:
        for attributes, name, value in reversed(undo):
            if value is _MISSING:
                attributes.pop(name, None)
            else:
                attributes[name] = value


_MISSING: Any = object()
