"""Take a replacement of a module's forward away again, in whichever order several are taken away."""

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

__all__ = ["take_away"]

_COVERED: "WeakKeyDictionary[Any, Any]" = WeakKeyDictionary()
"""By replacement that was taken away while another one covered it: what it had replaced."""


def take_away(module: nn.Module, forward: Callable[..., Any], found: Callable[..., Any] | None) -> None:
    """Take a replacement of a module's forward away; if another one covers it, it goes when that one goes.

    Args:
        module: The module.
        forward: The replacement, a function or a method, as it was put into the module's ``__dict__``.
        found: What stood in the ``__dict__`` before, None if nothing did.

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
