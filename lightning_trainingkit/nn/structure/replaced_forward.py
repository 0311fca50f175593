"""Remove a replacement of a module's forward. Several replacements may be removed in any order."""

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

__all__ = ["take_away"]

_COVERED: "WeakKeyDictionary[Any, Any]" = WeakKeyDictionary()
"""Removed replacement that a later one still covers, to the forward that it had replaced."""


def take_away(module: nn.Module, forward: Callable[..., Any], found: Callable[..., Any] | None) -> None:
    """Remove a replacement of a module's forward. If a later replacement covers it, both go when that one is removed.

    Args:
        module: The module.
        forward: The replacement, a function or a method, as it was put into the module's ``__dict__``.
        found: The ``forward`` that the ``__dict__`` had before, None if it had none.

    Example:
        >>> net = nn.Identity()
        >>> net.forward = lower = lambda x: 2 * x
        >>> found, net.forward = net.forward, (upper := lambda x: lower(x) + 1)
        >>> take_away(net, lower, None)
        >>> take_away(net, upper, found)
        >>> net(3)
        3
    """
    if vars(module).get("forward") is not forward:
        _COVERED[_function(forward)] = found
        return
    while found is not None and _function(found) in _COVERED:
        found = _COVERED.pop(_function(found))
    del vars(module)["forward"]
    vars(module).update({} if found is None else {"forward": found})


def _function(forward: Any) -> Any:
    return getattr(forward, "__func__", forward)
