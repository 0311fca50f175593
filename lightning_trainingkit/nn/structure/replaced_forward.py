"""Remove a replacement of a module's method. Several replacements may be removed in any order."""

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

__all__ = ["take_away"]

_COVERED: "WeakKeyDictionary[Any, Any]" = WeakKeyDictionary()
"""Removed replacement that a later one still covers, to the method that it had replaced."""


def take_away(
    module: nn.Module, method: Callable[..., Any], found: Callable[..., Any] | None, name: str = "forward"
) -> None:
    """Remove a replacement of a module's method. If a later replacement covers it, both go when that one is removed.

    Args:
        module: The module.
        method: The replacement, a function or a method, as it was put into the module's ``__dict__``.
        found: The method that the ``__dict__`` had before, None if it had none.
        name: Name of the method.

    Example:
        >>> net = nn.Identity()
        >>> net.forward = lower = lambda x: 2 * x
        >>> found, net.forward = net.forward, (upper := lambda x: lower(x) + 1)
        >>> take_away(net, lower, None)
        >>> take_away(net, upper, found)
        >>> net(3)
        3
    """
    if vars(module).get(name) is not method:
        _COVERED[_function(method)] = found
        return
    while found is not None and _function(found) in _COVERED:
        found = _COVERED.pop(_function(found))
    del vars(module)[name]
    vars(module).update({} if found is None else {name: found})


def _function(method: Any) -> Any:
    return getattr(method, "__func__", method)
